"""MIL operations that compute over several elements, beside PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from coremltools.converters.mil.mil import Builder
from mil_inputs import (
    BIAS,
    DEPTHWISE,
    GROUPED,
    KERNEL,
    LINE_KERNEL,
    MATRIX,
    POSITIVE,
    SCALES,
    SHIFTS,
    TRANSPOSED,
    WIDE,
)
from torch.nn import functional as F  # noqa: N812

CASES = {
    "linear": (
        lambda v: Builder.linear(x=v["image"], weight=MATRIX, bias=MATRIX[:, 0]),
        lambda t: F.linear(t["image"], torch.from_numpy(MATRIX), torch.from_numpy(MATRIX[:, 0])),
    ),
    "matmul": (
        lambda v: Builder.matmul(x=v["left"], y=v["right"]),
        lambda t: t["left"] @ t["right"],
    ),
    "matmul:transposed": (
        lambda v: Builder.matmul(x=v["right"], y=v["left"], transpose_x=True, transpose_y=True),
        lambda t: t["right"].mT @ t["left"].mT,
    ),
    "matmul:broadcast": (
        lambda v: Builder.matmul(x=v["image"], y=WIDE, transpose_y=True),
        lambda t: t["image"] @ torch.from_numpy(WIDE).T,
    ),
    "einsum": (
        lambda v: Builder.einsum(
            values=(v["image"], Builder.transpose(x=v["image"], perm=[0, 3, 2, 1])),
            equation="abcd,adce->abce",
        ),
        lambda t: torch.einsum("abcd,adce->abce", t["image"], t["image"].permute(0, 3, 2, 1)),
    ),
    "conv": (
        lambda v: Builder.conv(
            x=v["image"], weight=KERNEL, bias=BIAS, pad_type="custom", pad=[1] * 4
        ),
        lambda t: F.conv2d(t["image"], torch.from_numpy(KERNEL), torch.from_numpy(BIAS), padding=1),
    ),
    "conv:uneven": (
        lambda v: Builder.conv(
            x=v["image"],
            weight=KERNEL,
            strides=[2, 1],
            dilations=[1, 2],
            pad_type="custom",
            pad=[0, 1, 2, 3],
        ),
        lambda t: F.conv2d(
            F.pad(t["image"], (2, 3, 0, 1)),
            torch.from_numpy(KERNEL),
            stride=(2, 1),
            dilation=(1, 2),
        ),
    ),
    "conv:grouped": (
        lambda v: Builder.conv(x=v["image"], weight=GROUPED, groups=3, pad_type="same"),
        lambda t: F.conv2d(t["image"], torch.from_numpy(GROUPED), padding=1, groups=3),
    ),
    "conv:depthwise": (
        lambda v: Builder.conv(x=v["image"], weight=DEPTHWISE, groups=6, pad_type="valid"),
        lambda t: F.conv2d(t["image"], torch.from_numpy(DEPTHWISE), groups=6),
    ),
    "conv:line": (
        lambda v: Builder.conv(x=v["line"], weight=LINE_KERNEL, pad_type="custom", pad=[1, 1]),
        lambda t: F.conv1d(t["line"], torch.from_numpy(LINE_KERNEL), padding=1),
    ),
    "conv_transpose": (
        lambda v: Builder.conv_transpose(
            x=v["image"],
            weight=TRANSPOSED,
            bias=BIAS,
            strides=[2, 3],
            pad_type="custom",
            pad=[1] * 4,
        ),
        lambda t: F.conv_transpose2d(
            t["image"],
            torch.from_numpy(TRANSPOSED),
            torch.from_numpy(BIAS),
            stride=(2, 3),
            padding=1,
        ),
    ),
    "reduce_sum": (
        lambda v: Builder.reduce_sum(x=v["image"], axes=[1, 3], keep_dims=True),
        lambda t: t["image"].sum((1, 3), keepdim=True),
    ),
    "reduce_mean": (
        lambda v: Builder.reduce_mean(x=v["image"], axes=[-1], keep_dims=False),
        lambda t: t["image"].mean(-1),
    ),
    "reduce_max": (
        lambda v: Builder.reduce_max(x=v["image"], axes=[2], keep_dims=False),
        lambda t: t["image"].amax(2),
    ),
    "reduce_min": (
        lambda v: Builder.reduce_min(x=v["image"], axes=[2], keep_dims=False),
        lambda t: t["image"].amin(2),
    ),
    "reduce_prod": (
        lambda v: Builder.reduce_prod(x=v["small"], axes=[1], keep_dims=False),
        lambda t: t["small"].prod(1),
    ),
    "reduce_l1_norm": (
        lambda v: Builder.reduce_l1_norm(x=v["small"], axes=[1], keep_dims=False),
        lambda t: t["small"].abs().sum(1),
    ),
    "reduce_l2_norm": (
        lambda v: Builder.reduce_l2_norm(x=v["small"], axes=[1], keep_dims=False),
        lambda t: t["small"].norm(dim=1),
    ),
    "reduce_sum_square": (
        lambda v: Builder.reduce_sum_square(x=v["small"], axes=[1], keep_dims=False),
        lambda t: t["small"].square().sum(1),
    ),
    "reduce_argmax": (
        lambda v: Builder.reduce_argmax(x=v["small"], axis=1, keep_dims=False),
        lambda t: t["small"].argmax(1).int(),
    ),
    "reduce_argmin": (
        lambda v: Builder.reduce_argmin(x=v["small"], axis=1, keep_dims=True),
        lambda t: t["small"].argmin(1, keepdim=True).int(),
    ),
    "cumsum": (lambda v: Builder.cumsum(x=v["small"], axis=1), lambda t: t["small"].cumsum(1)),
    "softmax": (lambda v: Builder.softmax(x=v["image"], axis=1), lambda t: t["image"].softmax(1)),
    "layer_norm": (
        lambda v: Builder.layer_norm(
            x=v["image"], axes=[3], gamma=WIDE[0], beta=WIDE[1], epsilon=np.float32(1e-3)
        ),
        lambda t: F.layer_norm(
            t["image"], (10,), torch.from_numpy(WIDE[0]), torch.from_numpy(WIDE[1]), 1e-3
        ),
    ),
    "instance_norm": (
        lambda v: Builder.instance_norm(
            x=v["image"], gamma=SCALES, beta=SHIFTS, epsilon=np.float32(1e-3)
        ),
        lambda t: F.instance_norm(
            t["image"], weight=torch.from_numpy(SCALES), bias=torch.from_numpy(SHIFTS), eps=1e-3
        ),
    ),
    "batch_norm": (
        lambda v: Builder.batch_norm(
            x=v["image"],
            mean=SHIFTS,
            variance=POSITIVE,
            gamma=SCALES,
            beta=SHIFTS,
            epsilon=np.float32(1e-3),
        ),
        lambda t: F.batch_norm(
            t["image"],
            *(torch.from_numpy(a) for a in (SHIFTS, POSITIVE, SCALES, SHIFTS)),
            eps=1e-3,
        ),
    ),
    "l2_norm": (
        lambda v: Builder.l2_norm(x=v["image"], epsilon=np.float32(1e-3)),
        lambda t: t["image"] / (t["image"].square().sum((1, 2, 3), keepdim=True) + 1e-3).sqrt(),
    ),
    "avg_pool": (
        lambda v: Builder.avg_pool(
            x=v["image"],
            kernel_sizes=[3, 2],
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 0, 0],
            exclude_padding_from_average=True,
        ),
        lambda t: F.avg_pool2d(t["image"], (3, 2), 2, (1, 0), count_include_pad=False),
    ),
    "max_pool": (
        lambda v: Builder.max_pool(
            x=v["image"], kernel_sizes=[3, 3], strides=[2, 1], pad_type="custom", pad=[1] * 4
        ),
        lambda t: F.max_pool2d(t["image"], 3, (2, 1), 1),
    ),
    "upsample_bilinear": (
        lambda v: Builder.upsample_bilinear(
            x=v["image"], scale_factor_height=2.5, scale_factor_width=3.0, align_corners=False
        ),
        lambda t: F.interpolate(t["image"], (20, 30), mode="bilinear"),
    ),
    "upsample_bilinear:corners": (
        lambda v: Builder.upsample_bilinear(
            x=v["image"], scale_factor_height=2, scale_factor_width=3, align_corners=True
        ),
        lambda t: F.interpolate(t["image"], (16, 30), mode="bilinear", align_corners=True),
    ),
    "resize_bilinear": (
        lambda v: Builder.resize_bilinear(
            x=v["image"],
            target_size_height=13,
            target_size_width=7,
            sampling_mode="UNALIGN_CORNERS",
        ),
        lambda t: F.interpolate(t["image"], (13, 7), mode="bilinear"),
    ),
    "upsample_nearest_neighbor": (
        lambda v: Builder.upsample_nearest_neighbor(
            x=v["image"], scale_factor_height=2, scale_factor_width=3
        ),
        lambda t: F.interpolate(t["image"], (16, 30)),
    ),
    "resize_nearest_neighbor": (
        lambda v: Builder.resize_nearest_neighbor(
            x=v["image"], target_size_height=13, target_size_width=30
        ),
        lambda t: F.interpolate(t["image"], (13, 30)),
    ),
}
for _mode, _padding, _align in (
    ("bilinear", "zeros", False),
    ("bilinear", "border", True),
    ("bilinear", "reflection", True),
    ("bilinear", "reflection", False),
    ("nearest", "zeros", True),
):
    _names = {"zeros": "constant", "reflection": "reflection" if _align else "symmetric"}
    _mil = _names.get(_padding, _padding)
    CASES[f"resample:{_mode}-{_padding}-{_align}"] = (
        lambda v, m=_mode, p=_mil, a=_align: Builder.resample(
            x=v["image"],
            coordinates=v["points"],
            sampling_mode=m,
            padding_mode=p,
            padding_value=np.float32(0),
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=a,
        ),
        lambda t, m=_mode, p=_padding, a=_align: F.grid_sample(t["image"], t["points"], m, p, a),
    )


def _half(v, name):
    return Builder.cast(x=v[name], dtype="fp16")


# Float16: sums are accumulated in float32 and rounded once, other results rounded one by one.
HALF_CASES = {
    "linear": (
        lambda v: Builder.linear(x=_half(v, "image"), weight=MATRIX.astype(np.float16)),
        lambda t: (t["image"].half().float() @ torch.from_numpy(MATRIX).half().float().T).half(),
    ),
    "conv": (
        lambda v: Builder.conv(
            x=_half(v, "image"), weight=KERNEL.astype(np.float16), pad_type="valid"
        ),
        lambda t: F.conv2d(
            t["image"].half().float(), torch.from_numpy(KERNEL).half().float()
        ).half(),
    ),
    "add": (
        lambda v: Builder.add(
            x=Builder.mul(x=_half(v, "small"), y=_half(v, "positive")), y=_half(v, "small")
        ),
        lambda t: t["small"].half() * t["positive"].half() + t["small"].half(),
    ),
    "softmax": (
        lambda v: Builder.softmax(x=_half(v, "image"), axis=-1),
        lambda t: t["image"].half().float().softmax(-1).half(),
    ),
    "gelu": (
        lambda v: Builder.gelu(x=_half(v, "image"), mode="EXACT"),
        lambda t: F.gelu(t["image"].half().float()).half(),
    ),
}
