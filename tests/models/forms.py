"""How the forms of a network are held together: training, deploy, and every graph made of it.

Weights are random, images are noise of odd sizes in batches of 2, and scales are ones that no
trace used. A network is a configuration for :func:`scaleport.models.build_network`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scaleport.export import coreml, onnx
from scaleport.grid import Grid, subpixel_centres
from scaleport.mil import Evaluator, read_program
from scaleport.models import Network, build_network
from scaleport.models.base import GRID_PORTS, DeployForm, Stage
from scaleport.models.positions import GridTensors
from scaleport.models.resample import resample
from scaleport.runtimes.openvino_core import shared_core
from scaleport.validation.metrics import psnr

Scale = float | tuple[float, float]
Runner = Callable[[Stage, dict[str, Tensor]], dict[str, Tensor]]
SCALES: tuple[Scale, ...] = (2, 3, 4, 2.7, (2, 3.5))
SIZE = (13, 9)
LIMITS = {torch.float32: 1e-5, torch.float64: 1e-10}


def make(config: dict[str, Any], vary: bool = True) -> Network:
    """A network with fixed random weights, also where fresh ones are zeros or ones."""
    torch.manual_seed(0)
    network = build_network(config).eval()
    if vary:
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.unique().numel() == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def run_torch(stage: Stage, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    found = stage.module(*feeds.values())
    found = [found] if isinstance(found, Tensor) else list(found)
    return dict(zip([port.name for port in stage.outputs], found, strict=True))


def answers(
    network: Network, form: DeployForm, image: Tensor, grid: Grid, run: Runner = run_torch
) -> list[Tensor]:
    """Every way in which a deploy form answers a grid, with its stages run by ``run``."""
    known = {"image": image}

    def step(stage: Stage, **more: Tensor) -> None:
        feeds = {port.name: (known | more)[port.name] for port in stage.inputs}
        known.update(run(stage, feeds))

    scale = network.native_scale(grid)
    if scale is None:
        assert form.render is not None
        known.update(zip([port.name for port in GRID_PORTS], GridTensors.of(grid), strict=True))
        known["cell"] = torch.from_numpy(grid.cell)
        if form.prepare is not None:
            step(form.prepare)
        step(form.encode)
        step(form.render)
        return [known["upscaled"]]
    constants = {
        "subpixel": torch.from_numpy(subpixel_centres(scale)),
        "scale": torch.tensor([scale, scale], dtype=torch.float32),
    }
    if form.prepare is not None:
        step(form.prepare, **constants)
    step(form.encode, **constants)
    results = []
    for stage in (form.bound.get(scale), form.render):
        if stage is not None:
            step(stage, **constants)
            results.append(known["upscaled"])
    assert results
    if tuple(results[0].shape[2:]) == grid.output_size:
        return results
    return [resample(result, grid.rows, grid.cols) for result in results]


@torch.no_grad()
def check_forms(
    config: dict[str, Any],
    scales: Sequence[Scale] = SCALES,
    size: tuple[int, int] = SIZE,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64),
) -> dict[torch.dtype, float]:
    """Hold deploy form and training form together; gives the largest difference per type."""
    worst = {}
    for dtype in dtypes:
        network = make(config).to(dtype)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        form = network.deploy(dtype)
        image = torch.rand(2, 3, *size, dtype=dtype)
        worst[dtype] = 0.0
        for scale in scales:
            grid = Grid.from_scale(*size, scale)
            want = network(image, grid)
            assert tuple(want.shape) == (2, 3, *grid.output_size)
            assert want.std() > 1e-3, "nothing to compare"
            for got in answers(network, form, image, grid):
                assert got.dtype == want.dtype and got.shape == want.shape
                error = (got - want).abs().max().item()
                assert error <= LIMITS[dtype], (dtype, scale, error)
                worst[dtype] = max(worst[dtype], error)
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name
    return worst


def _compare(
    network: Network,
    form: DeployForm,
    dtype: torch.dtype,
    run: Runner,
    cases: Sequence[tuple[tuple[int, int], Scale]],
    what: str,
) -> float:
    worst = 0.0
    for size, scale in cases:
        generator = torch.Generator().manual_seed(1)
        image = torch.rand(2, 3, *size, generator=generator)
        grid = Grid.from_scale(*size, scale)
        want = network(image, grid).numpy()
        for result in answers(network, form, image, grid, run):
            got = result.numpy()
            assert got.shape == want.shape and got.dtype == np.float32
            error = float(np.abs(got - want).max())
            worst = max(worst, error)
            if dtype == torch.float16:
                assert psnr(got, want) >= 55, (what, size, scale, error)
            else:
                assert error <= 1e-4, (what, size, scale, error)
    return worst


def _chosen(form: DeployForm, only: Sequence[str]) -> list[Stage]:
    stages = [stage for stage in form.stages() if not only or stage.name in only]
    assert stages and len(stages) >= len(only)
    return stages


CASES: tuple[tuple[tuple[int, int], Scale], ...] = (((15, 7), 2.7), ((1, 5), 2))
"""LR sizes and scales that graphs are run at."""


@torch.no_grad()
def check_onnx(
    config: dict[str, Any],
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float16),
    cases: Sequence[tuple[tuple[int, int], Scale]] = CASES,
    openvino: bool = True,
    only: Sequence[str] = (),
) -> dict[str, float]:
    """Export every stage, run it in ONNX Runtime and, in float32, in OpenVINO.

    Where ``only`` names stages, the others run in PyTorch. Gives the largest difference to the
    training form, by runtime and type.
    """
    network = make(config)
    worst = {}
    for dtype in dtypes:
        form = network.deploy(dtype)
        models = {stage.name: onnx.export_stage(stage) for stage in _chosen(form, only)}
        name = f"onnxruntime {dtype}"
        worst[name] = _compare(network, form, dtype, run_onnx(models), cases, name)
        if openvino and dtype == torch.float32:
            name = f"openvino {dtype}"
            worst[name] = _compare(network, form, dtype, run_openvino(models), cases, name)
    return worst


def run_onnx(models: dict[str, Any]) -> Runner:
    """Runs stages in ONNX Runtime where there are graphs of them, and the others in PyTorch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sessions = {
        name: onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for name, model in models.items()
    }

    def run(stage: Stage, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        arrays = {name: value.numpy() for name, value in feeds.items()}
        names = [port.name for port in stage.outputs]
        if stage.name not in sessions:
            return run_torch(stage, feeds)
        found = sessions[stage.name].run(names, arrays)
        return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

    return run


def onnx_runner(stages: Sequence[Stage]) -> Runner:
    """Runs some stages in ONNX Runtime, and the others in PyTorch."""
    return run_onnx({stage.name: onnx.export_stage(stage) for stage in stages})


def run_openvino(models: dict[str, Any]) -> Runner:
    """The same in OpenVINO, in float32."""
    core = shared_core()
    compiled = {
        name: core.compile_model(
            core.read_model(model.SerializeToString()),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32"},
        )
        for name, model in models.items()
    }

    def run(stage: Stage, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        if stage.name not in compiled:
            return run_torch(stage, feeds)
        found = compiled[stage.name]({name: value.numpy() for name, value in feeds.items()})
        return {port.name: torch.from_numpy(found[port.name].copy()) for port in stage.outputs}

    return run


@torch.no_grad()
def check_coreml(
    config: dict[str, Any],
    folder: Path,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float16),
    cases: Sequence[tuple[tuple[int, int], Scale]] = CASES,
    only: Sequence[str] = (),
) -> dict[str, float]:
    """Convert every stage, or ``only`` those, to an ML program and evaluate it."""
    network = make(config)
    worst = {}
    for dtype in dtypes:
        form = network.deploy(dtype)
        evaluators = {}
        for stage in _chosen(form, only):
            path = folder / f"{stage.name}-{str(dtype).rpartition('.')[2]}.mlpackage"
            coreml.export_stage(stage, path)
            evaluators[stage.name] = Evaluator(read_program(path))

        def run(
            stage: Stage, feeds: dict[str, Tensor], evaluators: dict[str, Evaluator] = evaluators
        ) -> dict[str, Tensor]:
            if stage.name not in evaluators:
                return run_torch(stage, feeds)
            arrays = {name: value.numpy() for name, value in feeds.items()}
            found = evaluators[stage.name].run(arrays)
            return {name: torch.from_numpy(np.array(array)) for name, array in found.items()}

        name = f"coreml {dtype}"
        worst[name] = _compare(network, form, dtype, run, cases, name)
    return worst
