"""An opened TensorRT engine: values in and out by address, in the memory of the GPU."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scaleport.errors import (
    ArtifactError,
    BackendError,
    OutOfMemoryError,
    ScaleportError,
    UsageError,
)
from scaleport.runtimes.arrays import Arrays
from scaleport.runtimes.base import Feeds, Value, Values, checked_values, host
from scaleport.runtimes.cuda import Device, runtime, use_device
from scaleport.runtimes.device_arrays import DeviceArrays
from scaleport.runtimes.engine_library import Library, Messages, logged
from scaleport.runtimes.engine_record import ShapeRange
from scaleport.runtimes.pool import Pool
from scaleport.tensor import TensorSpec, dimension, element_type

REBUILD = "build it again from the ONNX graph in the bundle"


def open_engine(path: Path, library: Library, device: Device) -> Any:
    """Deserialise an engine; needs a GPU.

    Raises:
        ArtifactError: if the library refuses it.
        BackendError: if the GPU cannot be used.
        OutOfMemoryError: if the GPU's memory does not hold it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    use_device(runtime(), device.index)
    with logged(library) as (logger, messages):
        engine = library.module.Runtime(logger).deserialize_cuda_engine(data)
    if engine is None:
        if messages.out_of_memory:
            raise OutOfMemoryError(f"the GPU's memory does not hold the engine {path.name}")
        raise ArtifactError(
            f"{library.title} on {device.name} (compute capability {device.compute_capability}) "
            f"does not open {path.name}, {REBUILD}: {messages.first_error or 'no reason given'}"
        )
    return engine


class _Context:
    """An execution context with its scratch memory, for one caller at a time."""

    def __init__(self, native: Any, arrays: DeviceArrays) -> None:
        self.native = native
        self._arrays = arrays
        self._scratch: Any = None
        self._size = 0

    def reserve(self) -> None:
        """Give the context the memory that the shapes it was told need; it grows, and is kept."""
        size = max(1, int(self.native.update_device_memory_size_for_shapes()))
        if size > self._size:
            # Freed first: holding both would need twice the memory at the very limit.
            self._scratch, self._size = None, 0
            self._scratch = self._arrays.empty((size,), np.dtype(np.uint8))
            self._size = size
        self.native.set_device_memory(self._arrays.address(self._scratch), self._size)


class EngineSession:
    """An engine on one GPU, with a context of its own for every caller at a time.

    Values are arrays in the memory of the GPU. The stages of a model pass them on by address, on
    the stream of the calling thread, so that nothing waits before the pixels come down.

    Args:
        path: the engine.
        library: the library that built it.
        device: the GPU.
        arrays: what allocates memory there.
    """

    def __init__(self, path: Path, library: Library, device: Device, arrays: DeviceArrays) -> None:
        self._library = library
        self._device = device
        self._path = path
        self.arrays: Arrays = arrays
        self._memory = arrays
        self._engine: Any = open_engine(path, library, device)
        self._inputs = engine_io(library, self._engine, "INPUT")
        self._outputs = engine_io(library, self._engine, "OUTPUT")
        self._ranges = profile_ranges(library, self._engine, 0)
        self._contexts: Pool[_Context] = Pool(self._context, what=f"session of {path.name}")
        # So that an engine that cannot run fails when it is loaded.
        with self._contexts.borrowed():
            pass

    def _context(self) -> _Context:
        # By default a context reserves scratch memory for the profile's largest shapes; managed
        # here, it only takes what the shapes of each call need.
        strategy = self._library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        with logged(self._library) as (_, messages):
            native = self._engine.create_execution_context(strategy)
        if native is None:
            raise failure(messages, f"prepare {self._path.name}", self._library)
        return _Context(native, self._memory)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What :meth:`run` must be fed."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What :meth:`run` returns."""
        return self._outputs

    @property
    def device(self) -> str:
        """Library, GPU and its number."""
        return f"{self._library.title}, {self._device.name} (cuda:{self._device.index})"

    @property
    def max_batch(self) -> int:
        """Most images that one call takes; 0 where the engine has no range for them."""
        batches = [limits.max[0] for limits in self._ranges.values() if len(limits.max) == 4]
        firsts = [spec.shape[0] for spec in self._inputs if len(spec.shape) == 4]
        fixed = [count for count in firsts if isinstance(count, int)]
        return min((*batches, *fixed), default=0)

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> Values:
        """Run the engine once. Outputs that are kept may still be in the making.

        Raises:
            UsageError: if a feed is missing, unknown, of the wrong type or rank, or outside the
                range the engine was built for.
            OutOfMemoryError: if GPU memory ran out.
            BackendError: if TensorRT or CUDA failed otherwise, or the session is closed.
        """
        values = check_feeds(self._inputs, self._ranges, feeds)
        # The current GPU is a setting of each thread.
        with (
            self._memory.selected(),
            self._contexts.borrowed() as context,
            logged(self._library) as (_, messages),
        ):
            return self._run(context, values, keep, messages)

    def _run(
        self, context: _Context, values: dict[str, Value], keep: Collection[str], messages: Messages
    ) -> Values:
        # What TensorRT reads by address has to stay until the work is queued.
        alive: list[Any] = []
        for name, value in values.items():
            accepted = context.native.set_input_shape(name, tuple(value.shape))
            if self._on_host(name):
                array = np.ascontiguousarray(host(value))
                alive.append(array)
                address = array.ctypes.data
            else:
                native = self._memory.dense(self._memory.unwrap(value))
                alive.append(native)
                address = self._memory.address(native)
            if not (accepted and context.native.set_tensor_address(name, address)):
                raise failure(
                    messages, f"take input {name!r} of shape {tuple(value.shape)}", self._library
                )
        try:
            missing = context.native.infer_shapes()
        except RuntimeError as error:
            raise failure(messages, f"infer shapes: {error}", self._library) from error
        if missing:
            raise failure(messages, f"infer the shape of {', '.join(missing)}", self._library)
        outputs = self._bind_outputs(context.native)
        context.reserve()
        if not context.native.execute_async_v3(self._memory.stream):
            raise failure(messages, "run the graph", self._library)
        if not all(name in keep for name in outputs):
            self._memory.synchronize()
        return {
            name: native
            if self._on_host(name)
            else self._memory.wrap(native)
            if name in keep
            else self._memory.download(native)
            for name, native in outputs.items()
        }

    def _bind_outputs(self, context: Any) -> dict[str, Any]:
        """Memory for each output: on the GPU, or on the host where TensorRT wants it there."""
        outputs: dict[str, Any] = {}
        for spec in self._outputs:
            shape = tuple(context.get_tensor_shape(spec.name))
            if any(length < 0 for length in shape):
                raise BackendError(
                    f"the shape of output {spec.name!r} depends on values inside the graph, which "
                    "TensorRT sessions do not support"
                )
            if self._on_host(spec.name):
                outputs[spec.name] = array = np.empty(shape, spec.dtype)
                address = array.ctypes.data
            else:
                outputs[spec.name] = native = self._memory.empty(shape, np.dtype(spec.dtype))
                address = self._memory.address(native)
            context.set_tensor_address(spec.name, address)
        return outputs

    def _on_host(self, name: str) -> bool:
        return bool(
            self._engine.get_tensor_location(name) == self._library.module.TensorLocation.HOST
        )

    def close(self) -> None:
        """Release the engine and its memory; does nothing the second time."""
        # Contexts refer to the engine: they go first.
        self._contexts.close().clear()
        self._engine = None

    def __enter__(self) -> EngineSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_feeds(
    inputs: tuple[TensorSpec, ...], ranges: dict[str, ShapeRange], feeds: Feeds
) -> dict[str, Value]:
    """Compare feeds with what an engine takes.

    Returns:
        The feeds where they are, in the order of ``inputs``.

    Raises:
        UsageError: if one is missing, unknown, of the wrong type or rank, or out of range.
    """
    values = checked_values(feeds, inputs)
    for name, limits in ranges.items():
        value = values[name]
        asked = host(value).ravel().tolist() if limits.of == "values" else list(value.shape)
        spans = zip(limits.min, asked, limits.max, strict=True)
        if any(not low <= length <= high for low, length, high in spans):
            raise UsageError(
                f"{limits.of} {asked} of input {name!r} is outside what the engine was built for, "
                f"{list(limits.min)} to {list(limits.max)}; use tiles, or build an engine for a "
                "larger range"
            )
    return values


def failure(messages: Messages, what: str, library: Library) -> ScaleportError:
    """The error of a failed TensorRT call, by what the library logged about it."""
    if messages.out_of_memory:
        return OutOfMemoryError(f"the GPU ran out of memory trying to {what}; try a smaller tile")
    reason = messages.first_error or "no reason given"
    return BackendError(f"{library.title} could not {what}: {reason}")


def engine_io(library: Library, engine: Any, mode: str) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of an opened engine; ``mode`` is ``INPUT`` or ``OUTPUT``.

    An engine does not keep the names of dynamic dimensions.

    Raises:
        BackendError: if one is not of the types that graphs have at their border.
    """
    trt = library.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    specs = []
    for name in names:
        if engine.get_tensor_mode(name) == getattr(trt.TensorIOMode, mode):
            native = engine.get_tensor_dtype(name)
            dtype = element_type(np.dtype(trt.nptype(native)).name)
            if dtype is None:
                raise BackendError(f"{library.title}: tensor {name!r} has type {native}")
            shape = tuple(map(dimension, engine.get_tensor_shape(name)))
            specs.append(TensorSpec(name, dtype, shape))
    return tuple(specs)


def profile_ranges(library: Library, engine: Any, index: int) -> dict[str, ShapeRange]:
    """Ranges of the inputs of an opened engine in one of its profiles."""
    ranges = {}
    for spec in engine_io(library, engine, "INPUT"):
        name = spec.name
        if engine.get_tensor_location(name) == library.module.TensorLocation.HOST:
            # The bindings declare these two arguments under each other's name: by position only.
            three = engine.get_tensor_profile_values(index, name)
            of: Literal["shape", "values"] = "values"
        else:
            three, of = engine.get_tensor_profile_shape(name, index), "shape"
        if three and (of == "values" or any(isinstance(d, str) for d in spec.shape)):
            low, usual, high = (tuple(int(n) for n in one) for one in three)
            ranges[name] = ShapeRange(min=low, opt=usual, max=high, of=of)
    return ranges
