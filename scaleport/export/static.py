"""Graphs of fixed shape: for processors and compilers that take no dynamic dimension.

The graphs are those of any export with numbers in the place of names: what depended on a length is
folded away. The scale stays an input of a query network, because the grid is made of values and
not of shapes: a call renders a block of the output, of fixed size, at any scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import onnx
import onnxslim
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from scaleport.bundle.manifest import Graph, whole_name
from scaleport.errors import ExportError, UsageError
from scaleport.export.capture import quiet
from scaleport.export.onnx import check
from scaleport.export.whole import Part, join
from scaleport.grid import Grid, output_length
from scaleport.models.base import GRID_PORTS, IMAGE, Stage, listed
from scaleport.models.network import Network
from scaleport.runtimes.onnx_inside import MODULE_KEY
from scaleport.tensor import TensorSpec

USUAL_SCALE: Final = 2.0
"""Scale that decides the block of a query network where none was asked for."""

_KEPT_AS_THEY_ARE: Final = ["FusionGemm", "FusionGemmMul", "FusionGemmAdd"]
# A matrix product of more than two dimensions would become reshapes around one of two.


@dataclass(frozen=True)
class StaticShape:
    """The only shape that graphs take.

    Attributes:
        height: LR rows of the image that one call takes.
        width: LR columns.
        scale: of a lattice network, the only native scale that is written, all of them if None;
            of a query network, what one call renders is the image at this scale, by default 2.
        more: further heights and widths that Core ML programs of one image take (enumerated
            shapes); other formats and the runtime use the first size alone.
    """

    height: int
    width: int
    scale: float | None = None
    more: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.height, self.width, *(n for size in self.more for n in size)) < 1:
            raise UsageError(f"a fixed shape is at least 1x1, got {self.height}x{self.width}")

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All heights and widths, the usual ones first."""
        return tuple(dict.fromkeys(((self.height, self.width), *self.more)))


def natives_of(shape: StaticShape, network: Network) -> tuple[int, ...]:
    """Native scales of a lattice network that are written, empty for a query network.

    Raises:
        UsageError: if the network does not render the scale of the shape.
    """
    scale, natives, limits = shape.scale, network.upsampler.native_scales, network.limits
    if scale is None:
        return natives
    if natives and scale not in natives:
        known = ", ".join(map(str, natives))
        raise UsageError(f"--scale {scale:g} is no native scale of this model; it has {known}")
    if not limits.min <= scale <= limits.max:
        raise UsageError(
            f"--scale {scale:g} is outside the range of this model, {limits.min:g} to "
            f"{limits.max:g}"
        )
    return (int(scale),) if natives else ()


def lengths_of(shape: StaticShape, network: Network) -> dict[str, int]:
    """The length of every named dimension of a network's stages."""
    limits = network.limits
    scale = shape.scale or min(max(USUAL_SCALE, limits.min), limits.max)
    lengths = {
        "N": 1,
        "H": shape.height,
        "W": shape.width,
        "Ho": output_length(shape.height, scale),
        "Wo": output_length(shape.width, scale),
    }
    padding = network.encoder.padding
    if padding:
        lengths[f"H{padding.multiple}"] = padding.padded(shape.height)
        lengths[f"W{padding.multiple}"] = padding.padded(shape.width)
    return lengths


def check_shape(shape: StaticShape, halo: int, step: int, tiled: bool) -> None:
    """Refuse shapes that leave nothing of a tile beside its halo.

    Args:
        shape: the shape.
        halo: LR pixels by which tiles overlap.
        step: tiles begin at multiples of this.
        tiled: whether pictures are cut into tiles at all.

    Raises:
        UsageError: if it is too small, or not of whole windows.
    """
    for length in (shape.height, shape.width):
        if length % step:
            raise UsageError(
                f"{length} is not a multiple of {step}, the window of this network; choose "
                f"--static with multiples of {step}"
            )
        least = 2 * (halo + step - 1) + max(step, 2)
        if tiled and length < least:
            raise UsageError(
                f"tiles of this network overlap by {halo} pixels on each side: --static needs "
                f"sides of at least {-(-least // step) * step}, got {length}"
            )


def with_numbers(graph: Graph, lengths: Mapping[str, int]) -> Graph:
    """A manifest entry with lengths in the place of names."""

    def fixed(shape: tuple[int | str, ...], name: str) -> tuple[int | str, ...]:
        scaled = graph.stage.removeprefix("render_x").split("_")[0] if name == "upscaled" else ""
        if scaled.isdecimal():
            # At an integer scale all pixels of the crop are rendered.
            sides = (lengths["H"] * int(scaled), lengths["W"] * int(scaled))
            return (lengths["N"], shape[1], *sides)
        return tuple(lengths.get(d, d) if isinstance(d, str) else d for d in shape)

    inputs, outputs = (
        tuple(msgspec.structs.replace(t, shape=fixed(t.shape, t.name)) for t in tensors)
        for tensors in (graph.inputs, graph.outputs)
    )
    return msgspec.structs.replace(graph, inputs=inputs, outputs=outputs)


def specialised(model: onnx.ModelProto, entry: Graph) -> onnx.ModelProto:
    """A graph with the shapes of its manifest entry, and nothing left that depends on a length.

    Raises:
        ExportError: if a dimension, or the shape of a reshape, stays dynamic.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for values, tensors in (
        (fixed.graph.input, entry.inputs),
        (fixed.graph.output, entry.outputs),
    ):
        for value, tensor in zip(values, tensors, strict=True):
            for dim, size in zip(value.type.tensor_type.shape.dim, tensor.shape, strict=True):
                if isinstance(size, str):
                    raise ExportError(f"dimension {size!r} of {entry.stage!r} has no fixed length")
                dim.Clear()
                dim.dim_value = size
    with quiet():
        slim = onnxslim.slim(fixed, skip_fusion_patterns=_KEPT_AS_THEY_ARE)
    slim.producer_name, slim.producer_version = "scaleport", ""
    modules = {t: p.value for n in model.graph.node for t in n.output for p in n.metadata_props}
    for node in slim.graph.node:
        del node.metadata_props[:]
        if path := modules.get(node.output[0], ""):
            node.metadata_props.add(key=MODULE_KEY, value=path)
    del slim.graph.value_info[:]
    _shrink_constants(slim)
    what = f"graph {entry.stage!r} of fixed shape"
    check(slim, what)
    problem = dynamic_part(slim)
    if problem:
        raise ExportError(f"{what} still depends on a length: {problem}")
    return slim


_ELEMENTWISE: Final = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Less", "Greater"}
_LARGE: Final = 64


def _shrink_constants(model: onnx.ModelProto) -> None:
    """Make one number of each large constant that repeats it, where operations broadcast.

    What was a limit for every pixel, in a graph of any shape, would be stored pixel by pixel.
    """
    graph = model.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    shapes = _shapes(model)
    for tensor in graph.initializer:
        users = readers.get(tensor.name, [])
        if math.prod(tensor.dims) < _LARGE or any(u.op_type not in _ELEMENTWISE for u in users):
            continue
        # Some other operand must have all of the shape of the result.
        if not all(
            any(shapes.get(n) == shapes.get(u.output[0]) for n in u.input if n != tensor.name)
            for u in users
        ):
            continue
        values = numpy_helper.to_array(tensor)
        if (values == values.flat[0]).all():
            one = values.reshape(-1)[:1].reshape([1] * values.ndim)
            tensor.CopyFrom(numpy_helper.from_array(one, tensor.name))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    found = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    return found | {i.name: tuple(i.dims) for i in graph.initializer}


_SHAPED: Final = {"Reshape": (1,), "Expand": (1,), "Pad": (1,), "Tile": (1,), "Slice": (1, 2, 3, 4)}


def dynamic_part(model: onnx.ModelProto) -> str:
    """What of a graph depends on a length or a value, in a few words; empty if nothing does."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = inferred.graph
    known = {i.name for i in graph.initializer}
    known |= {n.output[0] for n in graph.node if n.op_type == "Constant"}
    for node in graph.node:
        for place in _SHAPED.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            if name and name not in known:
                return f"{node.op_type} {node.name} takes its shape from {name}"
        if node.op_type in ("Shape", "Size", "NonZero", "Range", "Loop", "If", "Scan"):
            return f"{node.op_type} {node.name}"
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if any(not d.HasField("dim_value") for d in dims):
            return f"tensor {value.name}"
    return ""


class WholeForm(nn.Module):
    """Encode and render at one scale, with the grid of that scale written in."""

    def __init__(self, encode: Stage, render: Stage, grid: Grid) -> None:
        super().__init__()
        self.encode, self.render = encode.module, render.module
        self._made = [port.name for port in encode.outputs]
        self._read = [port.name for port in render.inputs]
        self.fixed_grid = any(name in grid.feeds() for name in self._read)
        """Whether the size of the image is written in."""
        for name, value in grid.feeds().items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map float32[1, 3, H, W] to float32[1, 3, Ho, Wo]."""
        made = self.encode(image)
        values = dict(zip(self._made, listed(made), strict=True))
        out: Tensor = self.render(*(values.get(n, getattr(self, n, None)) for n in self._read))
        return out


def whole_parts(
    stages: Mapping[str, Stage], lengths: Mapping[str, int], scale: float, native: bool
) -> tuple[Stage, Stage, Grid] | None:
    """Encode, render and grid of the graph from an image to its pixels; None if it needs more."""
    encode = stages["encode"]
    render = stages.get(f"render_x{scale:g}" if native else "render")
    if render is None or [port.name for port in encode.inputs] != [IMAGE.name]:
        return None
    return encode, render, Grid.from_scale(lengths["H"], lengths["W"], scale)


def whole_stage(encode: Stage, render: Stage, grid: Grid, scale: float) -> Stage:
    """The stage ``whole_x2`` and the like: ``image -> upscaled``, both of fixed size."""
    upscaled = TensorSpec("upscaled", "float32", ("N", 3, *grid.output_size))
    parts = "; ".join(filter(None, (encode.float32_parts, render.float32_parts)))
    module = WholeForm(encode, render, grid)
    return Stage(whole_name(scale), module, (IMAGE,), (upscaled,), parts)


def joined_whole(
    stage: Stage, encode: onnx.ModelProto, render: onnx.ModelProto, grid: Grid
) -> onnx.ModelProto:
    """The ONNX graph of :func:`whole_stage` from those of its parts, of any precision."""
    info = onnx.helper.make_tensor_value_info
    feeds = grid.feeds()
    read = {value.name for value in render.graph.input}
    given = [port for port in GRID_PORTS if port.name in read]
    types = {"float32": onnx.TensorProto.FLOAT, "int32": onnx.TensorProto.INT32}
    image = info("image", onnx.TensorProto.FLOAT, list(IMAGE.shape))
    grids = [info(p.name, types[p.dtype], list(feeds[p.name].shape)) for p in given]
    out = info("upscaled", onnx.TensorProto.FLOAT, list(stage.outputs[0].shape))
    parts = [Part("encode", encode), Part("render", render)]
    model = join(stage.name, parts, [image, *grids], [out])
    del model.graph.input[1:]
    model.graph.initializer.extend(
        numpy_helper.from_array(feeds[port.name], port.name) for port in given
    )
    return model
