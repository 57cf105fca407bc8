"""The reduction from the lattice as a graph: the same for every model, so written and not traced.

It is :class:`scaleport.models.resample.Resample`, operation by operation; a test holds both
together, and bisecting a whole graph does so again.
"""

from __future__ import annotations

import functools

import onnx
import onnx.parser

from scaleport.export.onnx import IR_VERSION, OPSET
from scaleport.models.resample import tap_count

_WEIGHTS = """
  {p}_at = Unsqueeze({offset}, last_axis)
  {p}_distance = Sub({p}_at, steps_f)
  {p}_ratio = Gather(ratio, {place})
  {p}_signed = Div({p}_distance, {p}_ratio)
  {p}_x = Abs({p}_signed)
  {p}_near_1 = Mul({p}_x, near_a)
  {p}_near_2 = Sub({p}_near_1, near_b)
  {p}_near_3 = Mul({p}_near_2, {p}_x)
  {p}_near_4 = Mul({p}_near_3, {p}_x)
  {p}_near = Add({p}_near_4, one)
  {p}_far_1 = Mul({p}_x, far_a)
  {p}_far_2 = Add({p}_far_1, near_b)
  {p}_far_3 = Mul({p}_far_2, {p}_x)
  {p}_far_4 = Sub({p}_far_3, far_c)
  {p}_far_5 = Mul({p}_far_4, {p}_x)
  {p}_far = Add({p}_far_5, two)
  {p}_is_far = Less({p}_x, two)
  {p}_outer = Where({p}_is_far, {p}_far, zero)
  {p}_is_near = LessOrEqual({p}_x, one)
  {p}_raw = Where({p}_is_near, {p}_near, {p}_outer)
  {p}_sum = ReduceSum<keepdims: int = 1>({p}_raw, last_axis)
  {p}_weights = Div({p}_raw, {p}_sum)
  {p}_length = Shape<start: int = {dim}, end: int = {next}>({image})
  {p}_length_32 = Cast<to: int = 6>({p}_length)
  {p}_last = Sub({p}_length_32, one_i)
"""

_TAP = """
  {p}_moved_{t} = Add({index}, step_{t})
  {p}_from_{t} = Max({p}_moved_{t}, zero_i)
  {p}_place_{t} = Min({p}_from_{t}, {p}_last)
  {p}_taken_{t} = Gather<axis: int = {dim}>({image}, {p}_place_{t})
  {p}_column_{t} = Gather<axis: int = 1>({p}_weights, tap_{t})
  {p}_weight_{t} = Unsqueeze({p}_column_{t}, {p}_spread)
  {p}_part_{t} = Mul({p}_taken_{t}, {p}_weight_{t})
"""


@functools.lru_cache(maxsize=8)
def _text(taps: int) -> str:
    steps = range(1 - taps // 2, taps // 2 + 1)
    body = ""
    for p, dim, image, made in (("y", 2, "image", "on_rows"), ("x", 3, "on_rows", "upscaled")):
        side = "row" if p == "y" else "col"
        names = {"p": p, "image": image, "dim": dim, "next": dim + 1}
        body += _WEIGHTS.format(**names, offset=f"{side}_offset", place=f"tap_{dim - 2}")
        for tap in range(taps):
            body += _TAP.format(**names, index=f"{side}_index", t=tap)
            if tap:
                before = f"{p}_sum_{tap - 1}" if tap > 1 else f"{p}_part_0"
                after = made if tap == taps - 1 else f"{p}_sum_{tap}"
                body += f"  {after} = Add({before}, {p}_part_{tap})\n"
    moves = ", ".join(f"int32 step_{tap} = {{{step}}}" for tap, step in enumerate(steps))
    places = ", ".join(f"int64 tap_{tap} = {{{tap}}}" for tap in range(taps))
    listed = ", ".join(f"{step}.0" for step in steps)
    return f"""<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
resample (float[N,3,H,W] image, int32[Ho] row_index, float[Ho] row_offset, int32[Wo] col_index,
  float[Wo] col_offset, float[2] ratio) => (float[N,3,Ho,Wo] upscaled)
<
  float[{taps}] steps_f = {{{listed}}}, float zero = {{0.0}}, float one = {{1.0}},
  float two = {{2.0}}, float near_a = {{1.5}}, float near_b = {{2.5}}, float far_a = {{-0.5}},
  float far_c = {{4.0}}, int32 zero_i = {{0}}, int32 one_i = {{1}}, int64[1] last_axis = {{1}},
  int64[1] y_spread = {{1}}, int64[1] x_spread = {{0}}, {moves}, {places}
>
{{
{body}}}"""


def resample_graph(ratio: float) -> onnx.ModelProto:
    """The graph for reductions up to ``ratio``, in float32.

    Inputs: ``image`` float32[N, 3, H, W], the four vectors of the grid from the lattice, and
    ``ratio`` float32[2], lattice over output length, at least 1. Output: ``upscaled``.
    """
    model: onnx.ModelProto = onnx.parser.parse_model(_text(tap_count(ratio)))
    return model
