"""MIL operations that move elements, beside PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from coremltools.converters.mil.mil import Builder
from torch.nn import functional as F  # noqa: N812

CASES = {
    "shape": (
        lambda v: Builder.shape(x=v["image"]),
        lambda t: torch.tensor(t["image"].shape, dtype=torch.int32),
    ),
    "reshape": (
        lambda v: Builder.reshape(x=v["image"], shape=[0, 3, -1, 0]),
        lambda t: t["image"].reshape(2, 3, 16, 10),
    ),
    "reshape_like": (
        lambda v: Builder.reshape_like(
            x=v["left"],
            ref_tensors=(v["right"], v["left"]),
            begins=[0, 1],
            ends=[2, 2],
            end_masks=[False, False],
        ),
        lambda t: t["left"].reshape(2, 4, 5),
    ),
    "transpose": (
        lambda v: Builder.transpose(x=v["image"], perm=[0, 2, 3, 1]),
        lambda t: t["image"].permute(0, 2, 3, 1),
    ),
    "expand_dims": (
        lambda v: Builder.expand_dims(x=v["small"], axes=[0, 3]),
        lambda t: t["small"][None, :, :, None],
    ),
    "squeeze": (
        lambda v: Builder.squeeze(x=Builder.expand_dims(x=v["small"], axes=[0, 2]), axes=[0, 2]),
        lambda t: t["small"],
    ),
    "concat": (
        lambda v: Builder.concat(values=(v["small"], v["positive"]), axis=-1),
        lambda t: torch.cat([t["small"], t["positive"]], -1),
    ),
    "concat:interleave": (
        lambda v: Builder.concat(values=(v["small"], v["positive"]), axis=-2, interleave=True),
        lambda t: torch.stack([t["small"], t["positive"]], 1).flatten(0, 1),
    ),
    "stack": (
        lambda v: Builder.stack(values=(v["small"], v["positive"]), axis=1),
        lambda t: torch.stack([t["small"], t["positive"]], 1),
    ),
    "split": (
        lambda v: Builder.concat(
            values=Builder.split(x=v["small"], split_sizes=[2, 5], axis=1)[::-1], axis=1
        ),
        lambda t: torch.cat([t["small"][:, 2:], t["small"][:, :2]], 1),
    ),
    "split:equal": (
        lambda v: Builder.sub(
            x=Builder.split(x=v["image"], num_splits=2, axis=1)[0],
            y=Builder.split(x=v["image"], num_splits=2, axis=1)[1],
        ),
        lambda t: t["image"][:, :3] - t["image"][:, 3:],
    ),
    "tile": (lambda v: Builder.tile(x=v["small"], reps=[2, 3]), lambda t: t["small"].repeat(2, 3)),
    "reverse": (lambda v: Builder.reverse(x=v["small"], axes=[1]), lambda t: t["small"].flip(1)),
    "slice_by_index": (
        lambda v: Builder.slice_by_index(
            x=v["image"],
            begin=[1, 0, 6, 1],
            end=[0, 0, 1, -1],
            stride=[1, 2, -2, 3],
            begin_mask=[False, True, False, False],
            end_mask=[False, True, False, False],
            squeeze_mask=[True, False, False, False],
        ),
        lambda t: t["image"][1, ::2].flip(1)[:, 1:6:2, 1:-1:3],
    ),
    "slice_by_size": (
        lambda v: Builder.slice_by_size(x=v["small"], begin=[1, 2], size=[1, -1]),
        lambda t: t["small"][1:2, 2:],
    ),
    "pad": (
        lambda v: Builder.pad(
            x=v["image"], pad=[1, 2, 0, 3], mode="constant", constant_val=np.float32(7)
        ),
        lambda t: F.pad(t["image"], (0, 3, 1, 2), value=7),
    ),
    "pad:reflect": (
        lambda v: Builder.pad(x=v["image"], pad=[1, 2, 0, 3], mode="reflect"),
        lambda t: F.pad(t["image"], (0, 3, 1, 2), mode="reflect"),
    ),
    "pad:replicate": (
        lambda v: Builder.pad(x=v["image"], pad=[1, 2, 0, 3], mode="replicate"),
        lambda t: F.pad(t["image"], (0, 3, 1, 2), mode="replicate"),
    ),
    "gather": (
        lambda v: Builder.gather(x=v["image"], indices=v["index"], axis=2, validate_indices=False),
        lambda t: t["image"].index_select(2, t["index"]),
    ),
    "gather:batched": (
        lambda v: Builder.gather(
            x=v["left"],
            indices=np.array([[0, 3], [2, 2]], np.int32),
            axis=2,
            batch_dims=1,
            validate_indices=False,
        ),
        lambda t: torch.stack([t["left"][0][:, [0, 3]], t["left"][1][:, [2, 2]]]),
    ),
    "gather_along_axis": (
        lambda v: Builder.gather_along_axis(
            x=v["image"], indices=v["along"], axis=2, validate_indices=False
        ),
        lambda t: t["image"].gather(2, t["along"].long()),
    ),
    "gather_nd": (
        lambda v: Builder.gather_nd(
            x=v["left"], indices=np.array([[0, 1], [1, 4]], np.int32), validate_indices=False
        ),
        lambda t: torch.stack([t["left"][0, 1], t["left"][1, 4]]),
    ),
    "fill": (
        lambda v: Builder.add(x=v["small"], y=Builder.fill(shape=[3, 1], value=np.float32(4))),
        lambda t: t["small"] + 4,
    ),
    "fill_like": (
        lambda v: Builder.fill_like(ref_tensor=v["index"], value=np.int32(4099)),
        lambda t: torch.full_like(t["index"], 4099),
    ),
    "range_1d": (
        lambda v: Builder.range_1d(
            start=np.int32(2),
            end=Builder.slice_by_index(x=v["index"], begin=[2], end=[0], squeeze_mask=[True]),
            step=np.int32(2),
        ),
        lambda t: torch.arange(2, int(t["index"][2]), 2, dtype=torch.int32),
    ),
    "pixel_shuffle": (
        lambda v: Builder.pixel_shuffle(
            x=Builder.concat(values=(v["image"], v["image"]), axis=1), upscale_factor=2
        ),
        lambda t: F.pixel_shuffle(torch.cat([t["image"]] * 2, 1), 2),
    ),
    "pixel_unshuffle": (
        lambda v: Builder.pixel_unshuffle(x=v["image"], downscale_factor=np.uint32(2)),
        lambda t: F.pixel_unshuffle(t["image"], 2),
    ),
}
