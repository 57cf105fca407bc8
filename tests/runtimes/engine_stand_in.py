"""A GPU and an engine library to test with: graphs run on the processor, buffers are real.

:class:`Memory` is a device whose memory is apart from numpy's only by convention: everything that
goes in or out is copied and counted. :class:`Engine` answers as TensorRT's engines do, reads its
inputs and writes its outputs at the addresses that it is given, and computes with ONNX Runtime.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from types import SimpleNamespace

import array_api_compat.numpy as xp
import numpy as np
import onnxruntime

from scaleport.runtimes import engine_session
from scaleport.runtimes.base import Availability, Backend, SessionOptions
from scaleport.runtimes.cuda import Device
from scaleport.runtimes.device_arrays import DeviceArrays
from scaleport.runtimes.engine_library import Library, Messages
from scaleport.runtimes.engine_session import EngineSession
from scaleport.runtimes.gpu import GPU_WORK

TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


class Memory(DeviceArrays):
    """Arrays of a device that counts what crosses its border."""

    def __init__(self):
        super().__init__(xp, "counted")
        self.up = []
        self.down = []
        self.reserved = []
        self.current = 0

    def upload(self, array):
        self.up.append((array.shape, array.dtype, array.nbytes))
        return np.array(array)

    def download(self, native):
        self.down.append((native.shape, native.dtype, native.nbytes))
        return np.array(native)

    def empty(self, shape, dtype):
        made = np.empty(tuple(shape), dtype)
        self.reserved.append(made.nbytes)
        return made

    def address(self, native):
        assert native.flags.c_contiguous
        return native.ctypes.data

    stream = 0

    @contextmanager
    def selected(self):
        self.current += 1
        yield
        self.current -= 1

    def synchronize(self):
        pass

    def dense(self, native):
        return np.ascontiguousarray(native)


class Context:
    def __init__(self, engine):
        self.engine = engine
        self.shapes, self.addresses = {}, {}
        self.needed = self.given = 0

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        low, _, high = self.engine.get_tensor_profile_shape(name, 0)
        return all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address != 0

    def _read(self, name):
        dtype = np.dtype(TYPES[self.engine.inputs[name].type])
        count = int(np.prod(self.shapes[name]))
        data = ctypes.string_at(self.addresses[name], count * dtype.itemsize)
        return np.frombuffer(data, dtype).reshape(self.shapes[name])

    def _results(self):
        names = list(self.engine.outputs)
        feeds = {name: self._read(name) for name in self.engine.inputs}
        return dict(zip(names, self.engine.session.run(names, feeds), strict=True))

    def infer_shapes(self):
        missing = [name for name in self.engine.inputs if name not in self.shapes]
        if not missing:
            self.shapes.update({k: v.shape for k, v in self._results().items()})
            self.needed = 64 * sum(int(np.prod(shape)) for shape in self.shapes.values())
        return missing

    def get_tensor_shape(self, name):
        return self.shapes.get(name, (-1,))

    def update_device_memory_size_for_shapes(self):
        return self.needed

    def set_device_memory(self, address, size):
        assert address
        self.given = size

    def execute_async_v3(self, stream):
        assert self.given >= self.needed
        for name, array in self._results().items():
            dense = np.ascontiguousarray(array)
            ctypes.memmove(self.addresses[name], dense.ctypes.data, dense.nbytes)
        return True


class Engine:
    """An ONNX graph that answers as an engine; ``limits`` are (min, opt, max) per input."""

    def __init__(self, path, most_images, most_side=64):
        self.session = onnxruntime.InferenceSession(str(path))
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.most_images, self.most_side = most_images, most_side
        self.contexts = []

    @property
    def num_io_tensors(self):
        return len(self.inputs) + len(self.outputs)

    def _all(self):
        return {**self.inputs, **self.outputs}

    def get_tensor_name(self, index):
        return list(self._all())[index]

    def get_tensor_dtype(self, name):
        return TYPES[self._all()[name].type]

    def get_tensor_shape(self, name):
        return tuple(d if isinstance(d, int) else -1 for d in self._all()[name].shape)

    def get_tensor_mode(self, name):
        return "INPUT" if name in self.inputs else "OUTPUT"

    def get_tensor_location(self, name):
        # As TensorRT has it: tensors whose values decide about shapes lie on the host.
        return "HOST" if name == "size" else "DEVICE"

    def get_tensor_profile_shape(self, name, index):
        shape = self.inputs[name].shape
        largest = {"N": self.most_images, "H": self.most_side, "W": self.most_side}
        high = [d if isinstance(d, int) else largest.get(d, 4096) for d in shape]
        low = [d if isinstance(d, int) else 1 for d in shape]
        return low, low, high

    def get_tensor_profile_values(self, index, name):
        return [1, 1], [8, 8], [4096, 4096]

    def create_execution_context(self, strategy):
        self.contexts.append(Context(self))
        return self.contexts[-1]


MODULE = SimpleNamespace(
    TensorIOMode=SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
    TensorLocation=SimpleNamespace(HOST="HOST", DEVICE="DEVICE"),
    ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user"),
    nptype=lambda dtype: dtype,
)
LIBRARY = Library("stand_in", MODULE, "1.0")


@contextmanager
def _quiet(library):
    yield None, Messages()


class EngineBackend(Backend):
    """Runs a bundle's ONNX graphs as engines of a counted device."""

    name = "stand-in"
    graph_format = "onnx"

    def __init__(self, monkeypatch, most_images=2):
        self.memory = Memory()
        self.engines = {}
        self.calls = []
        monkeypatch.setattr(engine_session, "logged", _quiet)
        opened = lambda path, library, device: self._open(path, most_images)  # noqa: E731
        monkeypatch.setattr(engine_session, "open_engine", opened)

    def _open(self, path, most_images):
        engine = self.engines[path.stem] = Engine(path, most_images)
        run, calls, stage = Context.execute_async_v3, self.calls, path.stem

        def execute(context, stream):
            assert self.memory.current, "the current GPU is a setting of each thread"
            calls.append((stage, context.shapes[next(iter(engine.inputs))][0]))
            return run(context, stream)

        create = engine.create_execution_context

        def context(strategy):
            made = create(strategy)
            made.execute_async_v3 = lambda stream: execute(made, stream)
            return made

        engine.create_execution_context = context
        return engine

    def availability(self):
        return Availability(True, device="counted")

    def work(self, options):
        return GPU_WORK

    def load(self, graph, options: SessionOptions):
        return EngineSession(graph.path, LIBRARY, Device(0, "Stand-in", "0.0"), self.memory)
