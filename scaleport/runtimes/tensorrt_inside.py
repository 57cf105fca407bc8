"""TensorRT: every tensor of an ONNX graph, in an engine that is built for that, and its layers.

Engines are built here as an export builds them. This module therefore needs the room ``export``,
and only tools that look for faults import it.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scaleport.aliases import Array
from scaleport.errors import UsageError
from scaleport.runtimes.base import Backend, GraphFile, SessionOptions, host
from scaleport.runtimes.inside import Inner, Operations
from scaleport.runtimes.onnx_inside import marked, named, rename_tensors
from scaleport.tensor import NAME_PATTERN

if TYPE_CHECKING:
    import onnx


def build_marked(path: Path, feeds: Mapping[str, Array], target: Path) -> onnx.ModelProto:
    """Build an engine of an ONNX graph with every tensor as an output, for shapes of these feeds.

    Args:
        path: the graph.
        feeds: one array per input; those of ``size`` are its values too.
        target: the engine to write.

    Returns:
        The graph as it is, but for names of tensors that the record of an engine may not hold.

    Raises:
        BackendError: if a library is missing.
        ExportError: if TensorRT refuses the graph; names the node.
    """
    import onnx

    from scaleport.export.tensorrt import SIZE_INPUT, ShapeRange, build_engine

    model, all_outputs = marked(path)
    # Of a tensor that becomes an output only the name is known, and TensorRT wants its type.
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type for value in (*inferred.value_info, *inferred.output)}
    for output in all_outputs.graph.output:
        output.type.CopyFrom(types[output.name])
    _name_for_record(model, all_outputs)
    _count_truths(all_outputs.graph)
    ranges = {}
    for name, value in feeds.items():
        by_value = name == SIZE_INPUT
        only = tuple(int(n) for n in (value if by_value else value.shape))
        of: Literal["shape", "values"] = "values" if by_value else "shape"
        ranges[name] = ShapeRange(min=only, opt=only, max=only, of=of)
    # Under its own name, so that an error names the graph of the bundle.
    source = target.with_name(path.name)
    onnx.save(all_outputs, source)
    build_engine(source, target, ranges)
    return model


def _name_for_record(model: onnx.ModelProto, all_outputs: onnx.ModelProto) -> None:
    """Rename tensors of both graphs to what :data:`scaleport.tensor.Name` allows, in place."""
    made = [name for node in model.graph.node for name in node.output]
    names: dict[str, str] = {}
    for name in made:
        if not re.match(NAME_PATTERN, name):
            plain = re.sub(r"[^A-Za-z0-9._+-]", ".", name).lstrip("._+-")
            taken = {*made, *names.values()}
            ends = chain([""], map(".{}".format, count()))
            names[name] = next(plain + end for end in ends if plain + end not in taken)
    for graph in (model.graph, all_outputs.graph):
        _rename(names, graph)
        for value in (*graph.output, *graph.value_info):
            value.name = names.get(value.name, value.name)


def _rename(names: Mapping[str, str], graph: onnx.GraphProto) -> None:
    """Give tensors of a graph other names, in all its nodes."""
    for node in graph.node:
        rename_tensors(node, lambda name: names.get(name, name))


def _count_truths(graph: onnx.GraphProto) -> None:
    """Let outputs of truth values be 0 and 1 in int32, in place: a border has no truth values."""
    import onnx

    for output in graph.output:
        kind = output.type.tensor_type
        if kind.elem_type != onnx.TensorProto.BOOL:
            continue
        name, truth = output.name, f"{output.name}.truth"
        _rename({name: truth}, graph)
        kind.elem_type = onnx.TensorProto.INT32
        graph.node.append(onnx.helper.make_node("Cast", [truth], [name], to=kind.elem_type))


def inner(backend: Backend, path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
    """Build an engine of an ONNX graph with every tensor as an output, and run it.

    Built and run as the engines of a bundle are, by the same library.

    Raises:
        BackendError: if a library or a GPU is missing, or the engine cannot run.
        ExportError: if TensorRT refuses the graph.
    """
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "marked.engine"
        model = build_marked(path, feeds, target)
        outputs = tuple(name for node in model.graph.node for name in node.output)
        session = backend.load(
            GraphFile(target, path.stem, "", tuple(feeds), outputs), SessionOptions()
        )
        try:
            values = {name: host(value) for name, value in session.run(feeds).items()}
        finally:
            session.close()
    return named(model, values)


def operations(path: Path) -> Operations:
    """Count the layers of the network that an ONNX graph is parsed to, with or without a GPU.

    Raises:
        UsageError: if neither library is installed.
        ExportError: if the library refuses the graph.
    """
    from scaleport.export.tensorrt_network import NetworkBuild
    from scaleport.runtimes.engine_library import installed, logged

    libraries = installed()
    if not libraries:
        raise UsageError("neither TensorRT nor TensorRT-RTX is installed")
    # The RTX library parses on machines without a GPU as well.
    library = libraries[-1]
    with logged(library) as (logger, messages):
        build = NetworkBuild(library, logger, messages, path)
        build.parse()
        layers = [build.network.get_layer(i) for i in range(build.network.num_layers)]
        kinds = Counter(str(layer.type) for layer in layers)
    return Operations(
        len(layers), len(kinds), {f"{library.title}, parsed and not run": len(layers)}
    )
