"""An opened TensorRT engine: feeds in, arrays out, device memory in between."""

from __future__ import annotations

import contextlib
import threading
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
from scaleport.runtimes.base import Array, Feeds, Outputs, TensorSpec
from scaleport.runtimes.cuda import Device, DeviceBuffer, Stream, runtime, use_device
from scaleport.runtimes.engine_library import Library, Messages, logged
from scaleport.runtimes.engine_record import ShapeRange
from scaleport.runtimes.feeds import checked

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


class EngineSession:
    """An engine on one GPU. Calls from several threads run one after the other.

    Device memory is kept between calls and grows to the largest shapes seen.
    """

    def __init__(self, path: Path, library: Library, device: Device) -> None:
        self._library = library
        self._device = device
        self._path = path
        self._lock = threading.Lock()
        self._cuda = runtime()
        self._buffers: dict[str, DeviceBuffer] = {}
        self._stream: Stream | None = None
        self._context: Any = None
        self._engine: Any = open_engine(path, library, device)
        try:
            self._inputs = engine_io(library, self._engine, "INPUT")
            self._outputs = engine_io(library, self._engine, "OUTPUT")
            self._ranges = profile_ranges(library, self._engine, 0)
            self._stream = Stream(self._cuda)
            # By default a context reserves scratch memory for the profile's largest shapes;
            # managed here, it only takes what the shapes of each call need.
            strategy = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
            with logged(library) as (_, messages):
                self._context = self._engine.create_execution_context(strategy)
            if self._context is None:
                raise failure(messages, f"prepare {path.name}", library)
        except BaseException:
            self.close()
            raise

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

    def run(self, feeds: Feeds) -> Outputs:
        """Run the engine once and wait for it.

        Raises:
            UsageError: if a feed is missing, unknown, of the wrong type or rank, or outside the
                range the engine was built for.
            OutOfMemoryError: if GPU memory ran out.
            BackendError: if TensorRT or CUDA failed otherwise, or the session is closed.
        """
        arrays = check_feeds(self._inputs, self._ranges, feeds)
        with self._lock:
            if self._context is None or self._stream is None:
                raise BackendError(f"the session of {self._path.name} is closed")
            # The current GPU is a setting of each thread.
            use_device(self._cuda, self._device.index)
            with logged(self._library) as (_, messages):
                return self._run(self._context, self._stream, arrays, messages)

    def _run(
        self, context: Any, stream: Stream, arrays: dict[str, Array], messages: Messages
    ) -> Outputs:
        # Arrays that TensorRT reads from host memory must outlive the call: `arrays` holds them.
        for name, array in arrays.items():
            accepted = context.set_input_shape(name, array.shape)
            if self._on_host(name):
                address = array.ctypes.data
            else:
                address = self._reserve(name, array.nbytes)
                stream.upload(array, address)
            if not (accepted and context.set_tensor_address(name, address)):
                raise failure(
                    messages, f"take input {name!r} of shape {array.shape}", self._library
                )
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise failure(messages, f"infer shapes: {error}", self._library) from error
        if missing:
            raise failure(messages, f"infer the shape of {', '.join(missing)}", self._library)
        outputs = self._bind_outputs(context)
        size = context.update_device_memory_size_for_shapes()
        scratch = self._reserve("", size)
        context.set_device_memory(scratch, self._buffers[""].size)
        if not context.execute_async_v3(stream.handle):
            raise failure(messages, "run the graph", self._library)
        for name, array in outputs.items():
            if not self._on_host(name):
                stream.download(self._reserve(name, array.nbytes), array)
        stream.synchronize()
        return outputs

    def _bind_outputs(self, context: Any) -> Outputs:
        outputs: Outputs = {}
        for spec in self._outputs:
            shape = tuple(context.get_tensor_shape(spec.name))
            if any(length < 0 for length in shape):
                raise BackendError(
                    f"the shape of output {spec.name!r} depends on values inside the graph, which "
                    "TensorRT sessions do not support"
                )
            array = outputs[spec.name] = np.empty(shape, spec.dtype)
            host = self._on_host(spec.name)
            address = array.ctypes.data if host else self._reserve(spec.name, array.nbytes)
            context.set_tensor_address(spec.name, address)
        return outputs

    def _on_host(self, name: str) -> bool:
        return bool(
            self._engine.get_tensor_location(name) == self._library.module.TensorLocation.HOST
        )

    def _reserve(self, name: str, size: int) -> int:
        """Device memory of a tensor; the name "" stands for the context's scratch memory."""
        return self._buffers.setdefault(name, DeviceBuffer(self._cuda)).reserve(size)

    def close(self) -> None:
        """Release the engine and all device memory; does nothing the second time."""
        with self._lock:
            # The context refers to the engine, and both to the memory: in this order.
            self._context = None
            self._engine = None
            for buffer in self._buffers.values():
                buffer.close()
            self._buffers.clear()
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def __enter__(self) -> EngineSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            # At interpreter exit the driver may already be gone, and its memory with it.
            with contextlib.suppress(Exception):
                self.close()


def check_feeds(
    inputs: tuple[TensorSpec, ...], ranges: dict[str, ShapeRange], feeds: Feeds
) -> dict[str, Array]:
    """Compare feeds with what an engine takes.

    Returns:
        The feeds as contiguous arrays, in the order of ``inputs``.

    Raises:
        UsageError: if one is missing, unknown, of the wrong type or rank, or out of range.
    """
    arrays = checked(feeds, inputs)
    for name, limits in ranges.items():
        array = arrays[name]
        asked = array.ravel().tolist() if limits.of == "values" else list(array.shape)
        spans = zip(limits.min, asked, limits.max, strict=True)
        if any(not low <= value <= high for low, value, high in spans):
            raise UsageError(
                f"{limits.of} {asked} of input {name!r} is outside what the engine was built for, "
                f"{list(limits.min)} to {list(limits.max)}; use tiles, or build an engine for a "
                "larger range"
            )
    return arrays


def failure(messages: Messages, what: str, library: Library) -> ScaleportError:
    """The error of a failed TensorRT call, by what the library logged about it."""
    if messages.out_of_memory:
        return OutOfMemoryError(f"the GPU ran out of memory trying to {what}; try a smaller tile")
    reason = messages.first_error or "no reason given"
    return BackendError(f"{library.title} could not {what}: {reason}")


def engine_io(library: Library, engine: Any, mode: str) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of an opened engine; ``mode`` is ``INPUT`` or ``OUTPUT``."""
    trt = library.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    return tuple(
        TensorSpec(
            name,
            np.dtype(trt.nptype(engine.get_tensor_dtype(name))),
            tuple(engine.get_tensor_shape(name)),
        )
        for name in names
        if engine.get_tensor_mode(name) == getattr(trt.TensorIOMode, mode)
    )


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
        if three and (of == "values" or -1 in spec.shape):
            low, usual, high = (tuple(int(n) for n in one) for one in three)
            ranges[name] = ShapeRange(min=low, opt=usual, max=high, of=of)
    return ranges
