"""The whole graph of a model, for applications that do not use our runtime.

It is the staged graphs joined behind a *front* that computes the grid from the image's shape and
the requested scale, in integers, as :mod:`scaleport.grid` does. Two fronts:

* ``scale``: float32[2] (scale_y, scale_x), for ONNX Runtime and OpenVINO;
* ``size``: int64[2] (Ho, Wo), a shape tensor for TensorRT, which takes no float ones.

A float32 scale cannot carry a decimal such as 2.3 exactly, so the ``scale`` front counts results
within 2.4e-7 (relative) below a tie as the tie that was meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx
import onnx.parser

from scaleport.errors import ExportError
from scaleport.export.onnx import IR_VERSION, OPSET, check, simplify
from scaleport.models.base import GRID_PORTS, Stage
from scaleport.models.resample import Resample, tap_count
from scaleport.runtimes.onnx_inside import rename_tensors
from scaleport.tensor import TensorSpec

Front = Literal["scale", "size"]

_SIZE_FROM_SCALE = """
  lr_f = Cast<to: int = 1>(lr)
  exact = Mul(lr_f, scale)
  lifted = Mul(exact, up_to_tie)
  half_up = Add(lifted, half)
  floored = Floor(half_up)
  unclamped = Cast<to: int = 7>(floored)
  size = Max(unclamped, one)
"""

# u = ((2a + 1) n - N) / 2N is never below -1/2, so 2N is added before the division, which
# truncates towards zero, and 1 subtracted after it.
_AXIS = """
  {p}_a = Range(zero, {p}_N, step)
  {p}_2a = Mul({p}_a, two)
  {p}_odd = Add({p}_2a, step)
  {p}_on = Mul({p}_odd, {p}_n)
  {p}_num = Add({p}_on, {p}_N)
  {p}_2N = Mul({p}_N, two)
  {p}_quotient = Div({p}_num, {p}_2N)
  {p}_product = Mul({p}_quotient, {p}_2N)
  {p}_rest = Sub({p}_num, {p}_product)
  {p}_index64 = Sub({p}_quotient, step)
  {index} = Cast<to: int = 6>({p}_index64)
  {p}_rest_f = Cast<to: int = 1>({p}_rest)
  {p}_2N_f = Cast<to: int = 1>({p}_2N)
  {offset} = Div({p}_rest_f, {p}_2N_f)
"""

_QUERY = """
  y_n = Gather(lr, zero)
  x_n = Gather(lr, step)
  y_N = Gather(size, zero)
  x_N = Gather(size, step)
  size_f = Cast<to: int = 1>(size)
  n_f = Cast<to: int = 1>(lr)
  true_scale = Div(size_f, n_f)
"""

_LATTICE = """
  lr_less = Sub(lr, one)
  size_up = Add(size, lr_less)
  needed_axes = Div(size_up, lr)
  needed = ReduceMax<keepdims: int = 0>(needed_axes)
  enough = GreaterOrEqual(natives, needed)
  candidates = Where(enough, natives, largest)
  native = ReduceMin<keepdims: int = 0>(candidates)
  lattice = Mul(lr, native)
  y_n = Gather(lattice, zero)
  x_n = Gather(lattice, step)
  y_N = Gather(size, zero)
  x_N = Gather(size, step)
  size_f = Cast<to: int = 1>(size)
  lattice_f = Cast<to: int = 1>(lattice)
  reduction = Div(lattice_f, size_f)
  ratio = Max(reduction, one_f)
"""

_CELL = "  cell = Div(two_f, size_f)\n"

_SUBPIXEL = """
  s_i = Range(zero, native, step)
  s_2i = Mul(s_i, two)
  s_odd = Add(s_2i, step)
  s_odd_f = Cast<to: int = 1>(s_odd)
  native_f = Cast<to: int = 1>(native)
  s_unit = Div(s_odd_f, native_f)
  subpixel = Sub(s_unit, one_f)
  ones_f = Cast<to: int = 1>(ones)
  kernel_scale = Mul(ones_f, native_f)
"""


def front(
    kind: Front, natives: tuple[int, ...] = (), with_prepare: bool = False
) -> onnx.ModelProto:
    """The grid computation as a graph.

    Args:
        kind: what the second input is, see the module's text.
        natives: native scales of a lattice model; empty for a query model.
        with_prepare: also make the inputs of the ``prepare`` stage.

    Outputs: ``row_index``, ``row_offset``, ``col_index``, ``col_offset`` of the query grid, with
    ``true_scale`` and, if asked for, ``cell``, both float32[2]; for a lattice model those of the
    resampling from the lattice, with ``ratio`` float32[2], and with ``subpixel`` float32[S] and
    ``kernel_scale`` float32[2] if asked for.
    """
    body = "  lr = Shape<start: int = 2>(image)\n"
    body += _SIZE_FROM_SCALE if kind == "scale" else "  size = Max(wanted, one)\n"
    body += _LATTICE if natives else _QUERY
    if with_prepare:
        body += _SUBPIXEL if natives else _CELL
    body += _AXIS.format(p="y", index="row_index", offset="row_offset")
    body += _AXIS.format(p="x", index="col_index", offset="col_offset")
    outputs = ["int32[Ho] row_index", "float[Ho] row_offset"]
    outputs += ["int32[Wo] col_index", "float[Wo] col_offset"]
    outputs += ["float[2] ratio"] if natives else ["float[2] true_scale"]
    if with_prepare:
        made = ["float[S] subpixel", "float[2] kernel_scale"]
        outputs += made if natives else ["float[2] cell"]
    second = "float[2] scale" if kind == "scale" else "int64[2] wanted"
    listed = ", ".join(str(n) for n in natives) or "0"
    count, largest = max(1, len(natives)), max(natives, default=0)
    constants = f"""<
  int64 zero = {{0}}, int64 step = {{1}}, int64 two = {{2}}, int64[1] one = {{1}},
  int64[2] ones = {{1, 1}}, float[1] half = {{0.5}}, float[1] one_f = {{1.0}},
  float[1] two_f = {{2.0}},
  float[1] up_to_tie = {{1.0000002384185791}},
  int64[{count}] natives = {{{listed}}}, int64[1] largest = {{{largest}}}
>"""
    text = (
        f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>\n'
        f"front (float[N,3,H,W] image, {second}) => ({', '.join(outputs)})\n{constants}\n"
        f"{{\n{body}}}"
    )
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    used = {tensor for node in model.graph.node for tensor in node.input}
    kept = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def resample_stage(ratio: float) -> Stage:
    """Resampling from the lattice as a stage, for reductions up to ``ratio``. Always float32."""
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"))
    ratio_port = TensorSpec("ratio", "float32", (2,))
    return Stage(
        "resample",
        Resample(tap_count(ratio)),
        (image, *GRID_PORTS[:4], ratio_port),
        (TensorSpec("upscaled", "float32", ("N", 3, "Ho", "Wo")),),
    )


def whole_graph(
    kind: Front,
    stages: dict[str, onnx.ModelProto],
    natives: tuple[int, ...],
    resample: onnx.ModelProto | None,
) -> onnx.ModelProto:
    """Join the exported stages of a model into ``image, scale -> upscaled``.

    Args:
        kind: ``scale`` or ``size``: the name and meaning of the second input.
        stages: exported stages by name.
        natives: native scales of a lattice model; empty for a query model.
        resample: :func:`scaleport.export.resampling.resample_graph` of a lattice model.

    Raises:
        ExportError: if a stage is missing or the result is not valid.
    """
    with_prepare = "prepare" in stages
    renames = {"wanted": "size", "ratio": "ratio"}
    parts = [Part("front", front(kind, natives, with_prepare), renames)]
    if with_prepare:
        # Of a lattice model: the kernel of the native scale; of a query model: what encode reads.
        scale = "kernel_scale" if natives else "true_scale"
        parts.append(Part("prepare", stages["prepare"], {"scale": scale}))
    parts.append(Part("encode", stages["encode"]))
    if natives:
        if resample is None:
            raise ExportError("the whole graph of a lattice model needs its resampling stage")
        bound = [name for name in stages if name.startswith("render_x")]
        render = stages.get("render") or stages[bound[-1]]
        parts.append(Part("render", render, {"upscaled": "on_lattice"}))
        parts.append(Part("resample", resample, {"image": "on_lattice"}))
    else:
        parts.append(Part("render", stages["render"], {"scale": "true_scale"}))
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    info = onnx.helper.make_tensor_value_info
    second = info("scale", float32, [2]) if kind == "scale" else info("size", int64, [2])
    model = join(
        "whole",
        parts,
        [info("image", float32, ["N", 3, "H", "W"]), second],
        [info("upscaled", float32, ["N", 3, "Ho", "Wo"])],
    )
    check(model, "the whole graph")
    return simplify(model, "the simplified whole graph")


@dataclass(frozen=True)
class Part:
    """One graph of a composition.

    Border tensors keep their names, so that equal names connect; ``rename`` gives a border tensor
    another name in the joined graph. Inner names get ``prefix``.
    """

    prefix: str
    model: onnx.ModelProto
    rename: Mapping[str, str] = field(default_factory=dict)


def join(
    name: str,
    parts: Sequence[Part],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Join parts, given in the order of computation, into one model.

    Args:
        name: name of the joined graph.
        parts: graphs of one opset; each input must be an input of the whole or an output of an
            earlier part.
        inputs: inputs of the whole.
        outputs: outputs of the whole.

    Raises:
        ExportError: if a tensor is missing or made twice.
    """
    graph = onnx.GraphProto(name=name)
    made = {value.name for value in inputs}
    for part in parts:
        source = part.model.graph
        if [o.version for o in part.model.opset_import if o.domain in ("", "ai.onnx")] != [OPSET]:
            raise ExportError(f"cannot join {part.prefix!r}: it is not of opset {OPSET}")
        border = {v.name for v in (*source.input, *source.output)}
        names = {b: part.rename.get(b, b) for b in border} | {"": ""}

        def renamed(tensor: str, part: Part = part, names: dict[str, str] = names) -> str:
            return names.get(tensor, f"{part.prefix}/{tensor}")

        for value in source.input:
            if renamed(value.name) not in made:
                raise ExportError(f"cannot join {part.prefix!r}: nothing makes {value.name!r}")
        for tensor in source.initializer:
            copy = graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = renamed(tensor.name)
        for node in source.node:
            copy_node = graph.node.add()
            copy_node.CopyFrom(node)
            copy_node.name = f"{part.prefix}/{node.name or node.output[0]}"
            rename_tensors(copy_node, renamed)
            twice = made & set(copy_node.output) - {""}
            if twice:
                raise ExportError(f"cannot join {part.prefix!r}: {twice.pop()!r} is made twice")
            made |= set(copy_node.output)
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="scaleport"
    )
