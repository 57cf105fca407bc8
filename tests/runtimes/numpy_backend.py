"""A backend of numpy for models that blur and interpolate: a stranger's plug-in, and a quick one.

``encode`` is a 3x3 mean. ``render`` of a query model interpolates linearly at the grid;
``render_xS`` of a lattice model repeats pixels, and ``render`` does so at the size of its kernel.
"""

from __future__ import annotations

import numpy as np

from scaleport.bundle.manifest import FORMAT_VERSION, Graph, Manifest, ScaleRange, SizeRange
from scaleport.bundle.reader import open_bundle
from scaleport.bundle.writer import BundleWriter
from scaleport.runtimes.base import Availability, Backend, SessionOptions
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.upscaler import BundleSource
from scaleport.tensor import TensorSpec

GRID = ("row_index", "row_offset", "col_index", "col_offset", "scale")


def blur(image):
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), "edge")
    height, width = image.shape[2:]
    total = np.zeros_like(image)
    for y in range(3):
        for x in range(3):
            total += padded[:, :, y : y + height, x : x + width]
    return total / np.float32(9)


def linear(values, index, offset, axis):
    last = values.shape[axis] - 1
    shape = [1] * values.ndim
    shape[axis] = -1
    weight = offset.reshape(shape)
    lower = values.take(np.clip(index, 0, last), axis)
    return lower * (1 - weight) + values.take(np.clip(index + 1, 0, last), axis) * weight


def repeat(feature, scale):
    return feature.repeat(scale, 2).repeat(scale, 3)


class NumpySession:
    device = "numpy on this processor"
    inputs = ()
    outputs = ()

    def __init__(self, stage, calls):
        self.stage = stage
        self.calls = calls

    def close(self):
        pass

    def run(self, feeds, keep=()):
        self.calls.append(self.stage)
        if self.stage == "encode":
            return {"feature": blur(feeds["image"])}
        if self.stage == "prepare":
            count = len(feeds["subpixel"])
            return {"kernel": np.ones((3, count, count, 9), np.float32)}
        feature = feeds["feature"]
        if self.stage == "render" and "kernel" in feeds:
            return {"upscaled": repeat(feature, feeds["kernel"].shape[1])}
        if self.stage == "render":
            rows = linear(feature, feeds["row_index"], feeds["row_offset"], 2)
            return {"upscaled": linear(rows, feeds["col_index"], feeds["col_offset"], 3)}
        return {"upscaled": repeat(feature, int(self.stage.removeprefix("render_x")))}


class NumpyBackend(Backend):
    """Keeps what it loaded and ran, for tests to look at."""

    name = "numpy"
    graph_format = "numpy"

    def __init__(self):
        self.loaded = []
        self.calls = []

    def availability(self):
        return Availability(True, device="numpy", version=np.__version__)

    def load(self, graph, options):
        self.loaded.append((graph.stage, options))
        return NumpySession(graph.stage, self.calls)


def write_bundle(target, family="query", frozen=(), natives=(2, 3), **changes):
    """A bundle whose graphs are empty files in the format ``numpy``."""
    image = TensorSpec(name="image", dtype="float32", shape=("N", 3, "H", "W"))
    upscaled = TensorSpec(name="upscaled", dtype="float32", shape=("N", 3, "Ho", "Wo"))
    outputs = {
        "encode": TensorSpec(name="feature", dtype="float32", shape=("N", 3, "H", "W")),
        "prepare": TensorSpec(name="kernel", dtype="float32", shape=(3, "S", "S", 9)),
    }
    names = ["encode", "render", *(f"render_x{scale}" for scale in frozen)]
    names += ["prepare"] if family == "lattice" else []
    graphs = tuple(
        Graph(
            path=f"numpy/fp32/{name}.bin",
            stage=name,
            precision="fp32",
            inputs=(image,),
            outputs=(outputs.get(name, upscaled),),
        )
        for name in names
    )
    largest = 4.0 if family == "query" else float(max(natives))
    fields = {
        "format_version": FORMAT_VERSION,
        "name": "blurred",
        "family": family,
        "model": {},
        "parameters": 0,
        "scale": ScaleRange(min=0.5, max=largest, native=() if family == "query" else natives),
        "size_rule": "round-half-up",
        "height": SizeRange(min=1, opt=64, max=4096),
        "width": SizeRange(min=1, opt=64, max=4096),
        # One pixel of blur, and one to the second neighbour.
        "receptive_field": 2,
        "tiling": "exact",
        "graphs": {"numpy": graphs},
        "files": {},
        "tool_versions": {},
    }
    with BundleWriter(target, overwrite=False) as writer:
        writer.path("model.safetensors").write_bytes(b"")
        for graph in graphs:
            writer.path(graph.path).write_bytes(b"")
        writer.finish(Manifest(**{**fields, **changes}))
    return target


def numpy_stages(path):
    backend = NumpyBackend()
    bundle = open_bundle(path)
    return Stages(BundleSource(bundle), backend, backend.availability(), "fp32", SessionOptions())
