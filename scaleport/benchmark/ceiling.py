"""The machine's ceiling: multiply-adds per second of a plain float32 matrix product."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

import numpy as np

from scaleport.benchmark.timing import Work

SIDE: Final = 1536
"""Rows and columns: large enough to reach full speed, small enough for one turn among others."""
MACS: Final = SIDE**3


def products(threads: int) -> dict[str, Work]:
    """Matrix products of the installed libraries by name, each on ``threads`` threads.

    OpenVINO's is oneDNN's. NumPy's is only there if there is no other: its number of threads is
    fixed when it is loaded. The ceiling is the fastest of them.
    """
    rng = np.random.default_rng(0)
    left = rng.random((SIDE, SIDE), dtype=np.float32)
    right = rng.random((SIDE, SIDE), dtype=np.float32)
    found: dict[str, Work] = {}
    if find_spec("torch") is not None:
        found["matrix product, torch"] = _torch(left, right, threads)
    if find_spec("openvino") is not None:
        found["matrix product, openvino"] = _openvino(left, right, threads)
    if not found:
        found["matrix product, numpy"] = lambda: left @ right
    return found


def _torch(left: np.ndarray, right: np.ndarray, threads: int) -> Work:
    import torch

    torch.set_num_threads(threads)
    a, b = torch.from_numpy(left), torch.from_numpy(right)

    def work() -> object:
        with torch.inference_mode():
            return a @ b

    return work


def _openvino(left: np.ndarray, right: np.ndarray, threads: int) -> Work:
    import openvino
    from openvino import opset13

    from scaleport.runtimes.openvino_core import shared_core

    rows = opset13.parameter([SIDE, SIDE], np.float32)
    # The right factor is a constant, as weights are: packed once for the processor.
    model = openvino.Model([opset13.matmul(rows, opset13.constant(right), False, False)], [rows])
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = shared_core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([left], share_inputs=True, share_outputs=True)
