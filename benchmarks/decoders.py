"""Deploy form against training form of the upsamplers, behind an encoder of one block.

Every figure is a ratio of times measured side by side in one run: all contenders of a network take
turns, round by round, and the ratios are medians over rounds. Run it on an otherwise idle machine::

    python benchmarks/decoders.py --threads 2 --rounds 3 metasr ipe-liif
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from scaleport.benchmark.timing import machine, ratio, rounds
from scaleport.export.onnx import export_stage
from scaleport.grid import Grid
from scaleport.models import Network, build_network
from scaleport.models.base import GRID_PORTS, Stage
from scaleport.models.positions import GridTensors

SCALE = 4
UPSAMPLERS = ("liif", "ipe-liif", "metasr", "hiif", "msit", "igconv-plus", "spconv-plus")


def session(stage: Stage, threads: int) -> onnxruntime.InferenceSession:
    """The ONNX graph of a stage."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    data = export_stage(stage).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def contenders(
    network: Network, image: Tensor, threads: int, torch_only: bool
) -> dict[str, Callable[[], object]]:
    """Every way to upscale the image, by name; the training form first."""
    grid = Grid.from_scale(image.shape[2], image.shape[3], SCALE)
    form = network.deploy()
    known = dict(zip([p.name for p in GRID_PORTS], GridTensors.of(grid), strict=True))

    def training() -> object:
        with torch.inference_mode():
            return network(image, grid).numpy()

    def eager(render: Stage) -> Callable[[], object]:
        def work() -> object:
            with torch.inference_mode():
                made = form.encode.module(image)
                values = [made] if isinstance(made, Tensor) else list(made)
                names = [port.name for port in form.encode.outputs]
                feeds = known | dict(zip(names, values, strict=True))
                out: Tensor = render.module(*(feeds[port.name] for port in render.inputs))
                return out.numpy()

        return work

    def exported(render: Stage) -> Callable[[], object]:
        first, second = session(form.encode, threads), session(render, threads)
        names = [port.name for port in form.encode.outputs]
        grid_feeds = {name: value.numpy() for name, value in known.items()}

        def work() -> object:
            values = first.run(names, {"image": image.numpy()})
            feeds = grid_feeds | dict(zip(names, values, strict=True))
            found = second.run(None, {port.name: feeds[port.name] for port in render.inputs})
            return np.asarray(found[0])

        return work

    found: dict[str, Callable[[], object]] = {"training form": training}
    frozen = form.stage(f"render_x{SCALE}")
    general = form.render if network.upsampler.family == "query" else None
    for name, stage in (("general", general), (f"x{SCALE} frozen", frozen)):
        if stage is not None:
            found[f"deploy {name}, torch"] = eager(stage)
            if not torch_only:
                found[f"deploy {name}, onnxruntime"] = exported(stage)
    return found


def compared(ways: Mapping[str, Callable[[], object]], count: int) -> dict[str, dict[str, float]]:
    """Figures of every way, against the first one, by name."""
    first = next(iter(ways))
    reference = np.asarray(ways[first]())
    errors = {
        way: float(np.abs(np.asarray(work()) - reference).max()) for way, work in ways.items()
    }
    seconds = rounds(ways, count)
    return {
        way: {
            "median_s": round(statistics.median(seconds[way]), 4),
            "times_faster": round(ratio(seconds, first, way), 2),
            "max_abs": errors[way],
        }
        for way in ways
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=UPSAMPLERS, help="upsamplers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=96, help="LR height and width")
    parser.add_argument("--torch-only", action="store_true", help="leave out what has to be traced")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps({"machine": machine(), "threads": arguments.threads}))
    image = torch.rand(1, 3, arguments.side, arguments.side)
    for name in arguments.names:
        torch.manual_seed(0)
        options = {"scale": SCALE} if name == "spconv-plus" else {}
        upsampler = {"name": name, **options}
        encoder = {"name": "edsr", "width": 64, "blocks": 1}
        network = build_network({"encoder": encoder, "upsampler": upsampler}).eval()
        ways = contenders(network, image, arguments.threads, arguments.torch_only)
        print(json.dumps({name: compared(ways, arguments.rounds)}, indent=2), flush=True)


if __name__ == "__main__":
    main()
