"""AdamW as each device computes it best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scaleport.training.recipe import Optimiser


def make_optimiser(
    network: nn.Module, options: Optimiser, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over the parameters of a network, which go to ``device``.

    On CUDA its rate is a tensor and its counters stay on the device, so that a step can be
    recorded.
    """
    network.to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=options.lr,
        betas=options.betas,
        weight_decay=options.weight_decay,
    )
    fit_optimiser(optimiser, device)
    return optimiser


def fit_optimiser(optimiser: Any, device: torch.device) -> None:
    """Settings for a device, also after a state of another device was loaded."""
    cuda = device.type == "cuda"
    for group in optimiser.param_groups:
        rate = float(group["lr"])
        group["lr"] = torch.tensor(rate, device=device) if cuda else rate
        group["fused"], group["capturable"] = (True, True) if cuda else (None, False)
        for parameter in group["params"]:
            state = optimiser.state.get(parameter, {})
            if "step" in state:
                state["step"] = state["step"].to(device)


def set_rate(optimiser: Any, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
