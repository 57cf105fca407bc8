"""Graphs with right hashes that read other files or run other code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
from makers import add_graph, attack, copied, edit, replace
from onnx import TensorProto, helper

ENCODE = "onnx/fp32/encode.onnx"
IR = "openvino/fp32/encode.xml"


def _model(bundle: Path) -> Any:
    return onnx.load(bundle / ENCODE)


def _put(bundle: Path, model: Any) -> None:
    replace(bundle, ENCODE, model.SerializeToString())


def _external(home: Path, good: Path, location: str, **more: str) -> Path:
    bundle = copied(home, good)
    model = _model(bundle)
    tensor = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    _put(bundle, model)
    return bundle


@attack
def onnx_weights_above(home: Path, good: Path) -> None:
    """Weights from a file above the bundle."""
    (home / "secret").write_bytes(b"0123456789abcdef")
    _external(home, good, "../../../secret")


@attack
def onnx_weights_absolute(home: Path, good: Path) -> None:
    """Weights from a file of the machine."""
    _external(home, good, "/etc/passwd")


@attack
def onnx_weights_unlisted(home: Path, good: Path) -> None:
    """Weights from a file beside the graph that has no hash."""
    bundle = _external(home, good, "more.bin")
    (bundle / "onnx/fp32/more.bin").write_bytes(b"0123456789abcdef")


@attack
def onnx_weights_in_another_graph(home: Path, good: Path) -> None:
    """Weights from the bytes of another graph, which are not verified with this one."""
    _external(home, good, "render.onnx")


@attack
def onnx_weights_in_memory(home: Path, good: Path) -> None:
    """A place that ONNX Runtime takes for an address in its own memory."""
    _external(home, good, "*/_ORT_MEM_ADDR_/*", offset="4096", length="16")


@attack
def onnx_weights_beyond(home: Path, good: Path) -> None:
    """Weights beyond the end of a listed file."""
    bundle = _external(home, good, "more.bin", offset="8", length="16")
    replace(bundle, "onnx/fp32/more.bin", b"0123456789abcdef")


@attack
def onnx_weights_before(home: Path, good: Path) -> None:
    """Weights before the start of a listed file."""
    bundle = _external(home, good, "more.bin", offset="-8", length="16")
    replace(bundle, "onnx/fp32/more.bin", b"0123456789abcdef")


@attack
def onnx_weights_in_a_constant(home: Path, good: Path) -> None:
    """The same in an attribute of a node."""
    bundle = copied(home, good)
    model = _model(bundle)
    tensor = TensorProto(dims=[4], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["stolen"], value=tensor))
    _put(bundle, model)


@attack
def onnx_custom_operation(home: Path, good: Path) -> None:
    """An operation that a library of the attacker would bring."""
    bundle = copied(home, good)
    model = _model(bundle)
    model.graph.node.append(helper.make_node("Run", ["image"], ["x"], domain="evil"))
    model.opset_import.append(helper.make_opsetid("evil", 1))
    _put(bundle, model)


@attack
def onnx_context_operation(home: Path, good: Path) -> None:
    """An operation of ONNX Runtime itself that loads a compiled program from a path."""
    bundle = copied(home, good)
    model = _model(bundle)
    node = helper.make_node(
        "EPContext", ["image"], ["x"], domain="com.microsoft", ep_cache_context="/tmp/evil.bin"
    )
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    _put(bundle, model)


@attack
def onnx_custom_operation_in_a_branch(home: Path, good: Path) -> None:
    """The same in a branch that looks as if it never runs."""
    bundle = copied(home, good)
    model = _model(bundle)
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    run = helper.make_node("Run", ["image"], ["y"], domain="evil")
    branch = helper.make_graph([run], "b", [], [value])
    true = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(true)
    model.graph.node.append(
        helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    )
    _put(bundle, model)


@attack
def onnx_custom_operation_in_a_function(home: Path, good: Path) -> None:
    """The same in a function that the file defines itself."""
    bundle = copied(home, good)
    model = _model(bundle)
    run = helper.make_node("Run", ["a"], ["b"], domain="evil")
    function = helper.make_function("own", "F", ["a"], ["b"], [run], [])
    model.functions.append(function)
    model.graph.node.append(helper.make_node("F", ["image"], ["x"], domain="own"))
    _put(bundle, model)


@attack
def onnx_deep(home: Path, good: Path) -> None:
    """Branches within branches, two hundred deep."""
    bundle = copied(home, good)
    graph = b""
    for _ in range(200):
        for tag in (0x32, 0x2A, 0x0A):  # attribute.g, node.attribute, graph.node
            graph = bytes([tag]) + _length(len(graph)) + graph
    replace(bundle, ENCODE, b"\x08\x08\x3a" + _length(len(graph)) + graph)


def _length(value: int) -> bytes:
    made = b""
    while value > 127:
        made += bytes([value & 127 | 128])
        value >>= 7
    return made + bytes([value])


@attack
def onnx_text(home: Path, good: Path) -> None:
    """A file of another kind."""
    replace(copied(home, good), ENCODE, b"#!/bin/sh\nrm -rf /\n")


@attack
def onnx_cut(home: Path, good: Path) -> None:
    """Half a graph."""
    bundle = copied(home, good)
    data = (bundle / ENCODE).read_bytes()
    replace(bundle, ENCODE, data[: len(data) // 2])


@attack
def onnx_tensor_of_an_exabyte(home: Path, good: Path) -> None:
    """A weight that declares 2^60 numbers and holds a few."""
    bundle = copied(home, good)
    model = _model(bundle)
    kernel = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    kernel.dims[:2] = [1 << 30, 1 << 30]
    _put(bundle, model)


def _ir(home: Path, good: Path, old: str, new: str) -> Path:
    bundle = copied(home, good)
    text = (bundle / IR).read_text()
    assert old in text
    replace(bundle, IR, text.replace(old, new, 1).encode())
    return bundle


@attack
def ir_entities(home: Path, good: Path) -> None:
    """A billion laughs."""
    lines = ['<!DOCTYPE net [<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10)]
    _ir(home, good, "<net ", "".join(lines) + "]><net ")


@attack
def ir_entity_from_a_file(home: Path, good: Path) -> None:
    """An entity whose text is a file of the machine."""
    _ir(home, good, "<net ", '<!DOCTYPE net [<!ENTITY f SYSTEM "file:///etc/passwd">]><net ')


@attack
def ir_instruction(home: Path, good: Path) -> None:
    """An instruction to whatever program displays it."""
    _ir(home, good, "<net ", '<?xml-stylesheet href="http://evil/"?><net ')


@attack
def ir_extension(home: Path, good: Path) -> None:
    """A layer that a library of the attacker would bring."""
    _ir(home, good, 'type="Convolution" version="opset1"', 'type="Run" version="extension"')


@attack
def ir_weights_beyond(home: Path, good: Path) -> None:
    """A constant beyond the end of the weights."""
    _ir(home, good, ' offset="0"', ' offset="99999999999"')


@attack
def ir_weights_before(home: Path, good: Path) -> None:
    """A constant before the weights."""
    _ir(home, good, ' offset="0"', ' offset="-64"')


@attack
def ir_weights_unlisted(home: Path, good: Path) -> None:
    """Weights without a hash: OpenVINO reads them by their name alone."""
    bundle = copied(home, good)
    edit(bundle, lambda m: m["files"].pop("openvino/fp32/encode.bin"))


@attack
def ir_deep(home: Path, good: Path) -> None:
    """A thousand elements inside one another."""
    replace(copied(home, good), IR, b"<net>" + b"<a>" * 1000 + b"</a>" * 1000 + b"</net>")


@attack
def ir_html(home: Path, good: Path) -> None:
    """XML of another kind."""
    replace(copied(home, good), IR, b"<html><script/></html>")


@attack
def ir_cut(home: Path, good: Path) -> None:
    """Half a graph."""
    bundle = copied(home, good)
    data = (bundle / IR).read_bytes()
    replace(bundle, IR, data[: len(data) // 2])


PACKAGE = "coreml/fp32/encode.mlpackage"


def _package(home: Path, good: Path, path: str) -> Path:
    bundle = copied(home, good)
    entry = {"path": path, "author": "com.apple.CoreML", "name": "x", "description": ""}
    listing = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {"A": entry},
        "rootModelIdentifier": "A",
    }
    replace(bundle, f"{PACKAGE}/Manifest.json", json.dumps(listing).encode())
    replace(bundle, f"{PACKAGE}/Data/com.apple.CoreML/model.mlmodel", b"\x08\x09")
    edit(bundle, lambda m: add_graph(m, "coreml", PACKAGE))
    return bundle


@attack
def coreml_model_above(home: Path, good: Path) -> None:
    """A package whose model lies outside of it."""
    _package(home, good, "../../../../secret")
    (home / "secret").write_bytes(b"\x08\x09")


@attack
def coreml_file_unlisted(home: Path, good: Path) -> None:
    """A file in a package that has no hash; Core ML reads the folder as a whole."""
    bundle = _package(home, good, "com.apple.CoreML/model.mlmodel")
    (bundle / PACKAGE / "Data/com.apple.CoreML/weights.bin").write_bytes(b"x")


@attack
def coreml_folder_link(home: Path, good: Path) -> None:
    """A link in a package to a folder elsewhere."""
    bundle = _package(home, good, "com.apple.CoreML/model.mlmodel")
    (bundle / PACKAGE / "Data/weights").symlink_to("/etc")


@attack
def coreml_not_a_program(home: Path, good: Path) -> None:
    """A model that is no ML program but could hold custom layers."""
    _package(home, good, "com.apple.CoreML/model.mlmodel")


@attack
def engine_record_unlisted(home: Path, good: Path) -> None:
    """A record beside an engine that has no hash and would say what the engine is."""
    bundle = copied(home, good)
    replace(bundle, "tensorrt/fp32/encode.engine", b"engine", "tensorrt")
    (bundle / "tensorrt/fp32/encode.engine.json").write_bytes(b"{}")
