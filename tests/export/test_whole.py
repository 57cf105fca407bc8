"""Whole graphs: their front computes the sizes and the grid that scaleport.grid computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from scaleport.errors import ExportError
from scaleport.export.onnx import OPSET
from scaleport.export.resampling import resample_graph
from scaleport.export.whole import Part, front, join, resample_stage, whole_graph
from scaleport.grid import Grid, output_length, subpixel_centres

NATIVES = (2, 3, 4)
DECIMALS = [round(1 + i / 10, 1) for i in range(71)] + [1.25, 2.35, 3.37, 7.99]


def session(kind, natives=(), with_subpixel=False):
    model = front(kind, natives, with_subpixel)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def run(running, height, width, second):
    name = running.get_inputs()[1].name
    kind = np.float32 if name == "scale" else np.int64
    feeds = {"image": np.zeros((1, 3, height, width), np.float32), name: np.array(second, kind)}
    names = [output.name for output in running.get_outputs()]
    return dict(zip(names, running.run(names, feeds), strict=True))


def lengths():
    rng = np.random.default_rng(11)
    return sorted({*range(1, 40), 45, 99, 135, 255, 333, 500, *rng.integers(40, 1100, 30).tolist()})


def test_scale_front_follows_the_size_rule_at_every_decimal():
    running = session("scale")
    for n in lengths():
        for scale in DECIMALS:
            # Both axes at once: a row of n pixels and a column of one.
            found = run(running, n, 1, (scale, scale))
            want = (output_length(n, scale), output_length(1, scale))
            assert (len(found["row_index"]), len(found["col_index"])) == want, (n, scale)


@pytest.mark.parametrize("kind", ["scale", "size"])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.7, 1.3), (2.0, 3.5), (8.0, 3.3), (0.4, 0.03)])
@pytest.mark.parametrize("size", [(15, 21), (1, 7), (600, 5), (13, 1024)])
def test_query_front_is_the_grid(kind, scale, size):
    grid = Grid.from_scale(*size, scale)
    found = run(session(kind), *size, scale if kind == "scale" else grid.output_size)
    wanted = grid.feeds()
    for name in ("row_index", "col_index"):
        np.testing.assert_array_equal(found[name], wanted[name])
        assert found[name].dtype == np.int32
    for name in ("row_offset", "col_offset"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=6e-8)
        assert found[name].max() < 1
    np.testing.assert_allclose(found["true_scale"], wanted["scale"], rtol=1e-7)


@pytest.mark.parametrize("kind", ["scale", "size"])
@pytest.mark.parametrize("scale", [1.0, 1.3, 2.0, 2.1, 3.0, 3.7, 4.0, (1.0, 3.5), (2.5, 2.0)])
def test_lattice_front_resamples_from_the_next_native_scale(kind, scale):
    height, width = 15, 22
    grid = Grid.from_scale(height, width, scale)
    second = np.broadcast_to(scale, 2) if kind == "scale" else grid.output_size
    found = run(session(kind, NATIVES, with_subpixel=True), height, width, second)
    native = next(
        s for s in NATIVES if s * height >= grid.output_size[0] and s * width >= grid.output_size[1]
    )
    np.testing.assert_allclose(found["subpixel"], subpixel_centres(native), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(found["kernel_scale"], np.float32([native, native]))
    lattice = Grid.from_size(height * native, width * native, *grid.output_size)
    np.testing.assert_array_equal(found["row_index"], lattice.rows.index)
    np.testing.assert_array_equal(found["col_index"], lattice.cols.index)
    np.testing.assert_allclose(found["col_offset"], lattice.cols.offset, rtol=0, atol=6e-8)
    ratio = np.array([height, width]) * native / np.array(grid.output_size)
    np.testing.assert_allclose(found["ratio"], ratio, rtol=1e-6)


def test_size_of_nothing_becomes_one_pixel():
    found = run(session("size"), 4, 5, (0, -3))
    assert (len(found["row_index"]), len(found["col_index"])) == (1, 1)


def test_front_holds_no_constant_that_nobody_reads():
    for model in (front("scale"), front("size", NATIVES), front("size")):
        used = {name for node in model.graph.node for name in node.input}
        assert {tensor.name for tensor in model.graph.initializer} <= used


def test_lattice_without_its_resampling_is_refused():
    relu = model([("Relu", ["image"], ["feature"])], ["image"], ["feature"])
    render = model([("Relu", ["feature"], ["upscaled"])], ["feature"], ["upscaled"])
    with pytest.raises(ExportError, match="needs its resampling stage"):
        whole_graph("size", {"encode": relu, "render_x2": render}, (2,), None)


@pytest.mark.parametrize(("ratio", "size"), [(1.0, (9, 7)), (1.9, (5, 12)), (4.0, (33, 1))])
def test_written_resampling_is_the_module(ratio, size):
    torch = pytest.importorskip("torch")
    model = resample_graph(ratio)
    onnx.checker.check_model(model, full_check=True)
    stage = resample_stage(ratio)
    assert [value.name for value in model.graph.input] == [port.name for port in stage.inputs]
    grid = Grid.from_size(*size, *(max(1, int(n / ratio)) for n in size))
    image = np.random.default_rng(3).random((2, 3, *size), np.float32)
    lengths = [max(1.0, n / N) for n, N in zip(size, grid.output_size, strict=True)]
    feeds = {"image": image, **grid.feeds(), "ratio": np.float32(lengths)}
    feeds = {port.name: feeds[port.name] for port in stage.inputs}
    running = onnxruntime.InferenceSession(model.SerializeToString())
    with torch.no_grad():
        want = stage.module(*(torch.from_numpy(value) for value in feeds.values()))
    np.testing.assert_allclose(running.run(None, feeds)[0], want.numpy(), rtol=0, atol=1e-6)


def info(name):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N"])


def model(nodes, inputs, outputs, opset=OPSET, weights=()):
    made = [onnx.helper.make_node(op, i, o, name=f"{op}_{k}") for k, (op, i, o) in enumerate(nodes)]
    tensors = [onnx.numpy_helper.from_array(np.float32([value]), name) for name, value in weights]
    graph = onnx.helper.make_graph(
        made, "part", [info(i) for i in inputs], [info(o) for o in outputs], tensors
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])


DOUBLE = model(
    [("Add", ["x", "x"], ["t"]), ("Add", ["t", "w"], ["y"])], ["x"], ["y"], OPSET, [("w", 1)]
)


def test_join_keeps_inner_names_apart_and_renames_borders():
    parts = [
        Part("first", DOUBLE, {"y": "between"}),
        Part("second", DOUBLE, {"x": "between", "y": "out"}),
    ]
    joined = join("both", parts, [info("x")], [info("out")])
    onnx.checker.check_model(joined, full_check=True)
    running = onnxruntime.InferenceSession(joined.SerializeToString())
    (found,) = running.run(None, {"x": np.float32([3, 5])})
    np.testing.assert_array_equal(found, [15, 23])
    assert {node.name.split("/")[0] for node in joined.graph.node} == {"first", "second"}


def test_join_refuses_a_tensor_made_twice():
    parts = [Part("first", DOUBLE), Part("second", DOUBLE)]
    with pytest.raises(ExportError, match="cannot join 'second': 'y' is made twice"):
        join("both", parts, [info("x")], [info("y")])


def test_join_refuses_an_input_that_comes_later():
    parts = [Part("second", DOUBLE, {"x": "y", "y": "z"}), Part("first", DOUBLE)]
    with pytest.raises(ExportError, match="cannot join 'second': nothing makes 'x'"):
        join("both", parts, [info("x")], [info("z")])


def test_join_refuses_another_opset():
    old = model([("Relu", ["x"], ["y"])], ["x"], ["y"], opset=13)
    with pytest.raises(ExportError, match=f"'old': it is not of opset {OPSET}"):
        join("one", [Part("old", old)], [info("x")], [info("y")])


def test_join_keeps_names_apart_in_the_bodies_of_branches():
    def branch(number):
        # Reads the border tensor x and the inner tensor t of the graph around it.
        nodes = [("Add", ["x", "t"], ["s"]), ("Mul", ["s", "k"], ["r"])]
        made = [onnx.helper.make_node(op, i, o) for op, i, o in nodes]
        k = onnx.numpy_helper.from_array(np.float32([number]), "k")
        return onnx.helper.make_graph(made, "branch", [], [info("r")], [k])

    made = [
        onnx.helper.make_node("Neg", ["x"], ["n"]),
        onnx.helper.make_node("Mul", ["n", "n"], ["t"]),
        onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch(2), else_branch=branch(3)),
    ]
    condition = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])
    graph = onnx.helper.make_graph(made, "part", [info("x"), condition], [info("y")])
    chosen = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    parts = [
        Part("first", chosen, {"x": "in", "y": "between"}),
        Part("second", chosen, {"x": "between", "y": "out"}),
    ]
    joined = join("both", parts, [info("in"), condition], [info("out")])
    onnx.checker.check_model(joined, full_check=True)
    running = onnxruntime.InferenceSession(joined.SerializeToString())
    for flag, factor in ((True, 2), (False, 3)):
        x = np.float32([1, -2])
        want = x
        for _ in range(2):
            want = (want + want * want) * factor
        (found,) = running.run(None, {"in": x, "c": np.array(flag)})
        np.testing.assert_array_equal(found, want)
