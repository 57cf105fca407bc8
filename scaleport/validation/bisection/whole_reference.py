"""Every tensor of a whole graph, from the grid in numpy and the stages in PyTorch.

A whole graph is its stages behind a front that computes the grid, see
:mod:`scaleport.export.whole`. The front is not PyTorch: its reference is the front as it is
written, evaluated node by node by ONNX's own reference, whose results must be those of
:mod:`scaleport.grid`. The same goes for the reduction from the lattice, whose result must be that
of :class:`scaleport.models.resample.Resample`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch

from scaleport.aliases import Array, HostFeeds
from scaleport.bundle.manifest import Manifest
from scaleport.errors import ExportError
from scaleport.export.resampling import resample_graph
from scaleport.export.whole import Front, front
from scaleport.grid import Grid
from scaleport.models.base import Stage
from scaleport.validation.bisection.traced import Tensor

Run = Callable[[str, HostFeeds], dict[str, Tensor]]

FRONT = "front"


def whole_feeds(kind: Front, image: Array, scale: tuple[float, float]) -> HostFeeds:
    """What a whole graph is fed with: the image, and the scale or the size that it comes to."""
    if kind == "scale":
        return {"image": image, "scale": np.array(scale, np.float32)}
    size = Grid.from_scale(image.shape[2], image.shape[3], scale).output_size
    return {"image": image, "size": np.array(size, np.int64)}


def whole_tensors(
    image: Array,
    scale: tuple[float, float],
    manifest: Manifest,
    stages: tuple[Stage, ...],
    run: Run,
    kind: Front = "scale",
) -> dict[str, Tensor]:
    """Tensors of a whole graph, e.g. ``image, scale -> upscaled``, by the names they have in it.

    Args:
        image: float32[N, 3, H, W].
        scale: (scale_y, scale_x).
        manifest: the bundle's.
        stages: in the order of computation, ``resample`` the last one of a lattice model.
        run: runs a stage by name, other than ``resample``, and returns all its tensors.
        kind: which of the whole graphs: what it is fed with beside the image.

    Raises:
        ExportError: if the front as it is written does not give the grid.
    """
    natives = manifest.scale.native
    with_prepare = any(stage.name == "prepare" for stage in stages)
    found = {}
    for name, tensor in _front_tensors(kind, image, scale, natives, with_prepare).items():
        found[_joined("front", name, {"wanted": "size"}, _BORDER)] = tensor
    known = {"image": image, **{n: t.value for n, t in found.items()}}
    for stage in stages:
        prefix = part_of(stage.name)
        rename = _renames(prefix, bool(natives))
        border = {port.name for port in (*stage.inputs, *stage.outputs)}
        feeds = {port.name: known[rename.get(port.name, port.name)] for port in stage.inputs}
        written = stage.name == "resample"
        tensors = _resample_tensors(stage, feeds, manifest) if written else run(stage.name, feeds)
        for name, tensor in tensors.items():
            module = f"{prefix}: {tensor.module}" if tensor.module else prefix
            source = _joined(prefix, tensor.source, rename, border)
            joined = replace(tensor, module=module, source=source)
            found[_joined(prefix, name, rename, border)] = joined
        for port in stage.outputs:
            made = rename.get(port.name, port.name)
            known[made] = found[made].value
    return found


def part_of(stage: str) -> str:
    """Prefix that a stage's tensors have in the joined graph."""
    return "render" if stage.startswith("render") else stage


def _joined(prefix: str, name: str, rename: dict[str, str], border: Any) -> str:
    """The name of a tensor of a part in the joined graph."""
    return rename.get(name, name) if name in border else f"{prefix}/{name}"


_BORDER = (
    *("row_index", "row_offset", "col_index", "col_offset", "ratio", "true_scale", "cell"),
    *("subpixel", "kernel_scale"),
)


def _renames(prefix: str, lattice: bool) -> dict[str, str]:
    if prefix == "prepare":
        return {"scale": "kernel_scale" if lattice else "true_scale"}
    if prefix == "render":
        return {"upscaled": "on_lattice"} if lattice else {"scale": "true_scale"}
    return {"image": "on_lattice"} if prefix == "resample" else {}


def _front_tensors(
    kind: Front,
    image: Array,
    scale: tuple[float, float],
    natives: tuple[int, ...],
    with_prepare: bool,
) -> dict[str, Tensor]:
    model = front(kind, natives, with_prepare)
    # The size is "wanted" until the front is joined to the rest.
    feeds = {
        name.replace("size", "wanted"): value
        for name, value in whole_feeds(kind, image, scale).items()
    }
    found = _written_tensors(model, feeds, FRONT)
    grid = Grid.from_scale(image.shape[2], image.shape[3], scale)
    right = tuple(int(n) for n in found["size"].value) == grid.output_size
    if right and not natives:
        # Integers as they are, fractions to what a float32 division may round.
        for name, value in grid.feeds().items():
            slack = 0.0 if value.dtype.kind == "i" else 1e-6
            right &= name == "scale" or np.allclose(found[name].value, value, rtol=0, atol=slack)
    if not right:
        raise ExportError("the front of whole graphs, as it is written, does not give the grid")
    return found


def _resample_tensors(stage: Stage, feeds: HostFeeds, manifest: Manifest) -> dict[str, Tensor]:
    limits = manifest.scale
    found = _written_tensors(resample_graph(max(limits.native) / limits.min), feeds, "")
    with torch.inference_mode():
        want = stage.module(*(torch.from_numpy(np.array(value)) for value in feeds.values()))
    if not np.allclose(found["upscaled"].value, want.numpy(), rtol=0, atol=1e-5):
        raise ExportError("the resampling of whole graphs, as it is written, is not the network's")
    return found


def _written_tensors(model: onnx.ModelProto, feeds: HostFeeds, module: str) -> dict[str, Tensor]:
    """Every tensor of a graph that was written and not traced, by ONNX's own reference."""
    from onnx.reference import ReferenceEvaluator

    nodes = {name: node for node in model.graph.node for name in node.output}
    results = ReferenceEvaluator(model).run(list(nodes), feeds)
    return {
        name: Tensor(module, node.op_type, np.asarray(value))
        for (name, node), value in zip(nodes.items(), results, strict=True)
    }
