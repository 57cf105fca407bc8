"""Counting the multiply-adds of a network's stages.

Counted are matrix products and convolutions, two floating-point operations each, as
``torch.utils.flop_counter`` knows them. Shapes alone are worked out, nothing is computed, so that
the size of an image costs neither time nor memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from scaleport.catalogue import Counts, Work
from scaleport.grid import Grid, subpixel_centres
from scaleport.models.base import GRID_PORTS, DeployForm, Padding, Stage, listed
from scaleport.models.network import Network
from scaleport.models.positions import GridTensors

LR_SIZE = (192, 192)
"""A multiple of every window of the published networks, so that no padding is counted."""
SCALE = 4


def count(network: Network) -> Counts:
    """Multiply-adds of a network in both forms, at x4 or its largest native scale.

    ``prepare`` of the training form is counted once per scale, as in the deploy form; some authors'
    code repeats it per image.
    """
    network = copy.deepcopy(network).eval()
    scale = max(network.upsampler.native_scales, default=SCALE)
    grid = Grid.from_scale(*LR_SIZE, scale)
    with torch.no_grad():
        form = network.deploy()
        bound = form.stage(f"render_x{scale}")
        with FakeTensorMode(allow_non_fake_inputs=True):
            training = _training(network, grid)
            # Last, as the encoder may not be used after its deploy form was made.
            padding = network.encoder.padding
            deployed, general = _deployed(form, bound, network.encoder.deploy(), padding, grid)
    return Counts(scale, LR_SIZE, training, deployed, general)


def _training(network: Network, grid: Grid) -> Work:
    image = torch.rand(1, 3, *LR_SIZE)
    constants, prepare = _counted(lambda: network.prepare(grid))
    features, encode = _counted(lambda: network.encode(image, constants))
    _, render = _counted(lambda: network.render(features, grid, constants))
    # The training form's encode is its encoder, and nothing else.
    return Work(prepare, _per_lr(encode), _per_lr(encode), _per_hr(render, grid))


def _deployed(
    form: DeployForm, bound: Stage | None, encoder: nn.Module, padding: Padding, grid: Grid
) -> tuple[Work, float | None]:
    known = dict(zip([port.name for port in GRID_PORTS], GridTensors.of(grid), strict=True))
    known["image"] = torch.rand(1, 3, *LR_SIZE)
    known["cell"] = torch.from_numpy(grid.cell)
    known["subpixel"] = torch.from_numpy(subpixel_centres(round(grid.scale[0])))

    def run(stage: Stage | None) -> int:
        if stage is None:
            return 0
        inputs = [known[port.name] for port in stage.inputs]
        made, macs = _counted(lambda: stage.module(*inputs))
        known.update(zip([port.name for port in stage.outputs], listed(made), strict=True))
        return macs

    prepare, encode = run(form.prepare), run(form.encode)
    given = [known[port.name] for port in form.encode.inputs]
    given[0] = padding.pad(given[0]) if padding else given[0]
    _, alone = _counted(lambda: encoder(*given))
    general = None if form.render is None else _per_hr(run(form.render), grid)
    render = general if bound is None else _per_hr(run(bound), grid)
    assert render is not None
    return Work(prepare, _per_lr(encode), _per_lr(alone), render), general


def _counted(work: Callable[[], Any]) -> tuple[Any, int]:
    with FlopCounterMode(display=False) as counter:
        made = work()
    return made, counter.get_total_flops() // 2


def _per_lr(macs: int) -> float:
    return round(macs / (LR_SIZE[0] * LR_SIZE[1]), 3)


def _per_hr(macs: int, grid: Grid) -> float:
    return round(macs / (grid.output_size[0] * grid.output_size[1]), 3)
