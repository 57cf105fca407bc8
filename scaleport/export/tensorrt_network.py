"""One TensorRT build: parse an ONNX graph, give it a profile, compile it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from scaleport.errors import ExportError, OutOfMemoryError, UnsupportedOpError
from scaleport.runtimes.engine_library import Library, Messages, plain_message
from scaleport.runtimes.engine_record import PORTABLE, ShapeRange
from scaleport.tensor import ELEMENT_TYPES, TensorSpec, dimension, element_type

_TYPES: Final = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
_UNKNOWN_OP: Final = ("Plugin not found", "was not found in plugin registry", "No importer")


class NetworkBuild:
    """The objects of one build and what may go wrong with them, as one-line errors."""

    def __init__(self, library: Library, logger: Any, messages: Messages, onnx_path: Path) -> None:
        trt = library.module
        self._library = library
        self._messages = messages
        self._path = onnx_path
        self._builder = trt.Builder(logger)
        # Since TensorRT 11 every network is strongly typed and the flag, if still there, is idle.
        flags = trt.NetworkDefinitionCreationFlag
        typed = 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
        self.network = self._builder.create_network(typed)
        self._config = self._builder.create_builder_config()
        # On by default, and then float32 is not float32.
        self._config.clear_flag(trt.BuilderFlag.TF32)
        self._parser = trt.OnnxParser(self.network, logger)
        self._profile: Any = None

    def parse(self) -> None:
        """Read the graph into the network.

        Raises:
            UnsupportedOpError: if it holds an operation that the library does not know.
            ExportError: if it is refused otherwise; names the node.
        """
        if self._parser.parse_from_file(str(self._path)):
            return
        if not self._parser.num_errors:
            raise ExportError(self._says("cannot read", self._messages.first_error))
        error = self._parser.get_error(0)
        reason = plain_message(error.desc())
        if not error.node_operator():
            raise ExportError(self._says("cannot read", reason))
        node = repr(error.node_name()) if error.node_name() else f"number {error.node()}"
        # For operations that its table lists and nothing implements, the reason is just "false".
        unknown = reason in ("", "false") or any(text in reason for text in _UNKNOWN_OP)
        kind = UnsupportedOpError if unknown else ExportError
        if unknown:
            reason = "it knows no such operation"
        what = f"does not accept node {node} ({error.node_operator()}) of"
        raise kind(self._says(what, reason))

    def add_profile(self, ranges: Mapping[str, ShapeRange]) -> None:
        """Set the ranges of all dynamic inputs.

        Raises:
            ExportError: if a range is missing, superfluous, or does not fit its input.
        """
        inputs = [self.network.get_input(i) for i in range(self.network.num_inputs)]
        superfluous = sorted(set(ranges) - {tensor.name for tensor in inputs})
        if superfluous:
            raise ExportError(f"{self._path.name} has no input {superfluous[0]!r} to give a range")
        profile = self._builder.create_optimization_profile()
        needed = False
        for tensor in inputs:
            shape = tuple(tensor.shape)
            values = bool(tensor.is_shape_tensor)
            limits = ranges.get(tensor.name)
            if limits is None:
                if values or -1 in shape:
                    raise ExportError(
                        f"input {tensor.name!r} of {self._path.name} needs a range of its "
                        f"{'values' if values else 'shape'}"
                    )
                continue
            _check_range(tensor.name, shape, values, limits)
            setter = profile.set_shape_input if values else profile.set_shape
            setter(tensor.name, limits.min, limits.opt, limits.max)
            needed = True
        if needed and self._config.add_optimization_profile(profile) < 0:
            raise ExportError(self._says("refuses the ranges of", self._messages.first_error))
        self._profile = profile

    def compile(
        self, capabilities: tuple[str, ...], workspace: int, optimization_level: int | None
    ) -> bytes:
        """Build the engine and return it serialised.

        Args:
            capabilities: what to build for; taken as they are by TensorRT-RTX only.
            workspace: limit of the scratch memory in MiB; 0 for none.
            optimization_level: the builder's; None for its own.

        Raises:
            OutOfMemoryError: if memory ran out.
            ExportError: if the library fails otherwise.
        """
        trt = self._library.module
        if self._library.name == "tensorrt_rtx" and capabilities != (PORTABLE,):
            self._config.num_compute_capabilities = len(capabilities)
            for i, capability in enumerate(capabilities):
                member = getattr(trt.ComputeCapability, capability_member(capability))
                self._config.set_compute_capability(member, i)
        if workspace:
            self._config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
        if optimization_level is not None:
            self._config.builder_optimization_level = optimization_level
        plan = self._builder.build_serialized_network(self.network, self._config)
        if plan is not None:
            return bytes(plan)
        if self._messages.out_of_memory:
            raise OutOfMemoryError(f"{self._library.title} ran out of memory on {self._path.name}")
        raise ExportError(self._says("cannot build", self._messages.first_error))

    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the network.

        Raises:
            ExportError: if one is not of the types that graphs have at their border.
        """
        return tuple(self._spec(self.network.get_input(i)) for i in range(self.network.num_inputs))

    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the network.

        Raises:
            ExportError: as :meth:`inputs` does.
        """
        return tuple(
            self._spec(self.network.get_output(i)) for i in range(self.network.num_outputs)
        )

    def accepted_profile(self) -> dict[str, ShapeRange]:
        """The ranges as the library holds them."""
        ranges = {}
        for i in range(self.network.num_inputs):
            tensor = self.network.get_input(i)
            values = bool(tensor.is_shape_tensor)
            get = self._profile.get_shape_input if values else self._profile.get_shape
            three = [tuple(int(n) for n in one) for one in get(tensor.name)]
            if three:
                low, opt, high = three
                ranges[tensor.name] = ShapeRange(
                    min=low, opt=opt, max=high, of="values" if values else "shape"
                )
        return ranges

    def precisions(self) -> dict[str, int]:
        """Number of layer outputs of the network by element type."""
        count: Counter[str] = Counter()
        for i in range(self.network.num_layers):
            layer = self.network.get_layer(i)
            outputs = [layer.get_output(k) for k in range(layer.num_outputs)]
            count.update(type_name(output.dtype) for output in outputs if output is not None)
        return dict(sorted(count.items()))

    def _spec(self, tensor: Any) -> TensorSpec:
        dtype = element_type(type_name(tensor.dtype))
        if dtype is None:
            raise ExportError(
                f"tensor {tensor.name!r} of {self._path.name} has type {type_name(tensor.dtype)}; "
                f"inputs and outputs of a graph are {', '.join(ELEMENT_TYPES)}"
            )
        shape = [dimension(d, tensor.get_dimension_name(i)) for i, d in enumerate(tensor.shape)]
        return TensorSpec(tensor.name, dtype, tuple(shape))

    def _says(self, what: str, reason: str) -> str:
        return f"{self._library.title} {what} {self._path.name}: {reason or 'no reason given'}"


def capability_member(capability: str) -> str:
    """Name of a compute capability in TensorRT-RTX: ``SM89`` for ``8.9``."""
    return "SM" + capability.replace(".", "", 1)


def type_name(dtype: Any) -> str:
    """NumPy's name of a TensorRT element type, for those that NumPy knows."""
    name = str(dtype.name)
    return _TYPES.get(name, name.lower())


def _check_range(name: str, shape: tuple[int, ...], values: bool, limits: ShapeRange) -> None:
    """Compare a range with its input, since the library's own messages name no number."""
    if values != (limits.of == "values"):
        raise ExportError(
            f"input {name!r} {'decides' if values else 'does not decide'} shapes by its values: "
            f"it needs a range of its {'values' if values else 'shape'}, not of its {limits.of}"
        )
    length = shape[0] if values and shape else 1 if values else len(shape)
    _check_order(name, limits, length)
    rows = (limits.min, limits.opt, limits.max)
    fixed = () if values else shape
    for axis, size in enumerate(fixed):
        if size >= 0 and any(row[axis] != size for row in rows):
            raise ExportError(
                f"dimension {axis} of input {name!r} is {size} in the graph, and its range is "
                f"{rows[0][axis]} to {rows[2][axis]}"
            )


def _check_order(name: str, limits: ShapeRange, length: int) -> None:
    rows = (limits.min, limits.opt, limits.max)
    if any(len(row) != length for row in rows):
        raise ExportError(f"the ranges of input {name!r} need {length} numbers each")
    if any(not 0 <= a <= b <= c for a, b, c in zip(*rows, strict=True)):
        raise ExportError(
            f"the range of input {name!r} is not min <= opt <= max: {limits.min}, {limits.opt}, "
            f"{limits.max}"
        )
