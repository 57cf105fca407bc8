"""One checkpoint out of several of the same network: the mean of their weights.

Runs that begin at the same weights often end around one optimum, whose middle is better than its
rim (Wortsman et al. 2022, "Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from scaleport.bundle.integrity import sha256_file
from scaleport.errors import UsageError
from scaleport.models import load_checkpoint, save_checkpoint


def average_checkpoints(paths: Sequence[Path], target: Path) -> None:
    """Write the mean of checkpoints, whose digests its history keeps.

    Args:
        paths: at least two checkpoints of one configuration.
        target: the checkpoint to write.

    Raises:
        ArtifactError: if a checkpoint is damaged.
        OutputError: if the result cannot be written.
        UsageError: if they are fewer than two, or differ in configuration.
    """
    if len(paths) < 2:
        raise UsageError("an average needs at least two checkpoints")
    first, *others = [load_checkpoint(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        if other.config != first.config:
            raise UsageError(f"{path} is another network than {paths[0]}: average equal ones")
    states = [network.state_dict() for network in (first, *others)]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }
    first.load_state_dict(mean)
    save_checkpoint(first, target, {"average_of": [sha256_file(path).sha256 for path in paths]})
