"""The processes and devices of a run, and the arithmetic that they are good at."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from scaleport.errors import UsageError, one_line


def make_fabric(accelerator: str, devices: int, nodes: int, strategy: str, bf16: bool) -> Fabric:
    """A launched Fabric: what :class:`scaleport.training.loop.Trainer` runs on.

    Args:
        accelerator: ``auto``, ``cpu``, ``cuda`` or another name that Fabric knows.
        devices: processes per node.
        nodes: number of nodes.
        strategy: ``auto``, ``ddp`` or another name that Fabric knows.
        bf16: whether to compute in bfloat16, see :func:`computes_bf16`. Where the device cannot,
            float32 takes its place.

    Raises:
        UsageError: if this machine does not have what is asked for.
    """

    def fabric(bf16: bool) -> Fabric:
        return Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision="bf16-mixed" if bf16 else "32-true",
        )

    try:
        made = fabric(bf16=False)
        if bf16 and computes_bf16(made.device):
            made = fabric(bf16=True)
    except (ValueError, RuntimeError) as error:  # Fabric's own errors are among them
        reason = one_line(error)
        raise UsageError(f"cannot train on {accelerator} x {devices}: {reason}") from error
    made.launch()
    return made


def computes_bf16(device: torch.device) -> bool:
    """Whether a device computes convolutions in bfloat16 no slower than in float32.

    Where it has no instructions for it PyTorch goes through every value: a convolution took nine
    times as long as in float32 on a processor with AVX2.
    """
    if device.type == "cpu":
        # PyTorch has no public name for what decides which convolution it takes.
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return True


def upload(values: Any, device: torch.device) -> Tensor:
    """Numbers as a tensor on a device, without waiting for what the device still computes."""
    if device.type != "cuda":
        return torch.as_tensor(values)
    return torch.as_tensor(values).pin_memory().to(device, non_blocking=True)
