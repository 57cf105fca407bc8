"""What the selective scan of MambaIRv2 costs as a loop in a graph.

One state-space part of MambaIRv2-light, and the whole encoder of 20 of them: the training form in
PyTorch, the deploy form in PyTorch, and the exported graph, whose two steps are ONNX ``Scan``, in
ONNX Runtime and OpenVINO. All take turns, round by round, and ratios are medians over rounds. Run
it on an otherwise idle machine::

    python benchmarks/scan.py --threads 1 --rounds 3 --sides 64 128
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable

import openvino
import torch
from decoders import compared, session
from torch import Tensor, nn

from scaleport.benchmark.timing import machine
from scaleport.export.onnx import export_stage
from scaleport.models import ENCODERS
from scaleport.models.base import Encoder, Stage
from scaleport.models.encoders.mambairv2 import AttentiveScan, scan_by_lanes
from scaleport.tensor import TensorSpec

WINDOW = 16
Work = Callable[[], object]


def contenders(
    module: nn.Module, deployed: nn.Module, stage: Stage, x: Tensor, threads: int
) -> dict[str, Work]:
    """Every way to run a module, by name; the training form in PyTorch first."""

    def eager(one: nn.Module) -> Work:
        def work() -> object:
            with torch.inference_mode():
                return one(x).numpy()

        return work

    feeds = {stage.inputs[0].name: x.numpy()}
    runtime = session(stage, threads)
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = core.read_model(export_stage(stage).SerializeToString())
    compiled = core.compile_model(model, "CPU", options)
    found: dict[str, Work] = {
        "training form, torch": eager(module),
        "deploy form, torch": eager(deployed),
        "graph, onnxruntime": lambda: runtime.run(None, feeds)[0],
        "graph, openvino": lambda: compiled(feeds)[0],
    }
    return found


class Padded(nn.Module):
    """An encoder of windows behind the padding that makes an image one of whole windows."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to features of whole windows."""
        padding = self.encoder.padding
        assert padding
        features: Tensor = self.encoder(padding.pad(image))
        return features


def subjects() -> dict[str, tuple[nn.Module, nn.Module, Stage]]:
    """One scan, and an encoder of twenty: both forms, and the deploy form as a stage."""
    torch.manual_seed(0)
    encoder = ENCODERS.create("mambairv2", {"window": WINDOW}).eval().requires_grad_(False)
    scan = next(m for m in encoder.modules() if isinstance(m, AttentiveScan))
    found: dict[str, tuple[nn.Module, nn.Module, Stage]] = {}
    width = encoder.out_channels
    for name, module, given, made in (
        ("one scan", scan, ("N", "H", "W", width), ("N", "H", "W", width)),
        ("whole encoder", Padded(encoder), ("N", 3, "H", "W"), ("N", width, "H16", "W16")),
    ):
        deployed = copy.deepcopy(module)
        scan_by_lanes(deployed, WINDOW**2)
        stage = Stage(
            "encode",
            deployed,
            (TensorSpec("image", "float32", given),),
            (TensorSpec("feature", "float32", made),),
        )
        found[name] = (module, deployed, stage)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128], help="LR height, width")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps({"machine": machine(), "threads": arguments.threads}))
    for name, (module, deployed, stage) in subjects().items():
        for side in arguments.sides:
            shape = [{"N": 1, "H": side, "W": side}.get(d, d) for d in stage.inputs[0].shape]
            ways = contenders(module, deployed, stage, torch.rand(shape), arguments.threads)
            figures = compared(ways, arguments.rounds)
            print(json.dumps({f"{name}, LR {side}x{side}": figures}, indent=2), flush=True)


if __name__ == "__main__":
    main()
