"""Ranges of activations, from what a graph computes on calibration patches.

Memory is bounded: one patch is in memory at a time, and what is kept of a tensor is its minimum,
its maximum and a histogram of fixed size. Percentile and entropy thresholds are those of
``onnxruntime.quantization``, from the same histograms.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, get_args

import numpy as np
import onnx
from onnx import helper

from scaleport.aliases import Array, HostFeeds
from scaleport.errors import BackendError, ExportError, UsageError

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: Final[tuple[str, ...]] = get_args(Method)

Ranges = dict[str, tuple[float, float]]

# Entropy compares every threshold with every bin: its histogram is coarser.
_BINS: Final = {"percentile": 8192, "entropy": 512, "mse": 4096}
_ENTROPY_LEVELS: Final = 128
_PERCENTILE: Final = 99.999
_CANDIDATES: Final = 64


def observe(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    feeds: Callable[[], Iterable[HostFeeds]],
    method: Method = "minmax",
) -> Ranges:
    """Learn the range of tensors.

    Args:
        model: the float32 graph.
        tensors: names of float tensors in it; graph inputs may be among them.
        feeds: called once or twice, gives the same inputs of the graph each time.
        method: ``minmax``; ``percentile`` leaves 0.001 % of the values outside; ``entropy`` keeps
            the distribution's information; ``mse`` keeps the least squared rounding error.

    Returns:
        (low, high) by name, each as float32 numbers with low <= high.

    Raises:
        UsageError: if the method is unknown.
        BackendError: if onnxruntime is not installed.
        ExportError: if a tensor holds NaN or infinity; the first one is named.
    """
    if method not in METHODS:
        raise UsageError(f"unknown range method {method!r}; known: {', '.join(METHODS)}")
    if not tensors:
        return {}
    extremes: Ranges = {}
    run = _observed(model, tensors)
    for values in map(run, feeds()):
        for name, value in values.items():
            low, high = float(value.min()), float(value.max())
            if not np.isfinite([low, high]).all():
                raise ExportError(
                    f"tensor {name!r} of graph {model.graph.name!r} holds NaN or infinity on "
                    "calibration images; the weights are damaged or the network overflows"
                )
            seen = extremes.get(name, (low, high))
            extremes[name] = min(low, seen[0]), max(high, seen[1])
    if method == "minmax":
        return extremes
    return _from_histograms(extremes, map(run, feeds()), method)


def _observed(model: onnx.ModelProto, tensors: Sequence[str]) -> Callable[[HostFeeds], HostFeeds]:
    """A function that runs the graph and returns the tensors."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            "calibration needs onnxruntime: pip install 'scaleport[export]'"
        ) from error
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    inner = [name for name in tensors if name not in inputs]
    for name in inner:
        if name not in outputs:
            shown.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(feeds: HostFeeds) -> HostFeeds:
        found = dict(zip(inner, session.run(inner, feeds), strict=True)) if inner else {}
        return found | {name: feeds[name] for name in tensors if name in inputs}

    return run


def _from_histograms(extremes: Ranges, passes: Iterator[HostFeeds], method: Method) -> Ranges:
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(
        method="percentile" if method == "mse" else method,
        symmetric=False,
        num_bins=_BINS[method],
        num_quantized_bins=_ENTROPY_LEVELS,
        percentile=_PERCENTILE,
        scenario="same",
    )
    found = {}
    for name, (low, high) in extremes.items():
        reach = float(max(abs(low), abs(high)))
        if reach == 0:
            found[name] = (low, high)
            continue
        # Bins for all that is to come: a collector that starts empty grows with what it meets.
        counts, edges = np.histogram([], _BINS[method], range=(-reach, reach))
        collector.histogram_dict[name] = (
            counts,
            edges.astype(np.float32),
            np.float32(low),
            np.float32(high),
            np.float32(reach),
        )
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        for values in passes:
            known = {n: v for n, v in values.items() if n in collector.histogram_dict}
            collector.collect(known)
        if method != "mse" and collector.histogram_dict:
            made = collector.compute_collection_result()
            found |= {n: (float(bounds[0]), float(bounds[1])) for n, bounds in made.items()}
    if method == "mse":
        for name, (counts, edges, low, high, _) in collector.histogram_dict.items():
            found[name] = least_squares_range(counts, edges, float(low), float(high))
    return {name: found[name] for name in extremes}


def least_squares_range(
    counts: Array, edges: Array, low: float, high: float, levels: int = 256
) -> tuple[float, float]:
    """The part of a range whose rounding and clipping errors together are least.

    Args:
        counts: int[B], a histogram.
        edges: float[B + 1], its edges.
        low: least value seen.
        high: largest value seen.
        levels: number of quantised values.
    """
    centres = (edges[:-1].astype(np.float64) + edges[1:]) / 2
    low, high = min(low, 0.0), max(high, 0.0)
    used = counts > 0
    centres, counts = centres[used], counts[used]
    best = (np.inf, low, high)
    for share in np.linspace(1.0, 0.3, _CANDIDATES):
        bottom, top = low * share, high * share
        step = max((top - bottom) / (levels - 1), 1e-30)
        clipped = np.clip(centres, bottom, top)
        error = float((counts * ((clipped - centres) ** 2 + step * step / 12)).sum())
        if error < best[0]:
            best = (error, bottom, top)
    return best[1], best[2]
