"""Files of a run: the state to resume from, and weights to begin with."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from scaleport.atomic import atomic_path
from scaleport.bundle.integrity import sha256_file
from scaleport.errors import ArtifactError, OutputError, UsageError
from scaleport.models import Network, load_checkpoint
from scaleport.training.recipe import Recipe

STATE_FILE = "state.pt"


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Save a state; the old one stays until the new one is complete, also on a power cut.

    Raises:
        OutputError: if it cannot be written.
    """
    with atomic_path(path, sync=True) as new:
        try:
            torch.save(state, new)
        except RuntimeError as error:
            raise OutputError(f"cannot write {path}: {error}") from error


def read_state(path: Path) -> dict[str, Any]:
    """Load a saved state.

    Raises:
        ArtifactError: if it is damaged.
        UsageError: if there is none.
    """
    if not path.is_file():
        raise UsageError(f"nothing to resume: no {path}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("not a state")
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.PickleError) as error:
        raise ArtifactError(f"{path} is damaged; start again without --resume") from error
    return state


@dataclass(frozen=True)
class Start:
    """What a run began with, kept in its history.

    Attributes:
        sha256: of the checkpoint's file.
        fresh: names of the parameters that were not in it.
        unused: names of its tensors that had no place.
    """

    sha256: str
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def begin_with(network: Network, path: Path) -> Start:
    """Take over the weights of a checkpoint by name, as far as their shapes agree.

    That is how the second stage of a recipe follows the first: the encoder of C2D-ISR gets another
    upsampler, the convolutions of MSIT get refinements beside their weights.

    Raises:
        ArtifactError: if the checkpoint is damaged.
        UsageError: if nothing of the encoder fits.
    """
    other = load_checkpoint(path).state_dict()
    own = network.state_dict()
    fits = {k: v for k, v in other.items() if k in own and own[k].shape == v.shape}
    if not any(name.startswith("encoder.") for name in fits):
        raise UsageError(f"{path} has no weights for the encoder of this recipe")
    network.load_state_dict(fits, strict=False)
    return Start(
        sha256_file(path).sha256,
        tuple(sorted(set(own) - set(fits))),
        tuple(sorted(set(other) - set(fits))),
    )


def same_recipe(saved: object, recipe: Recipe) -> bool:
    """Whether a run may go on with this recipe: all but the number of steps must be the same.

    Settings that came after the state was saved have their defaults in it.
    """
    try:
        known = msgspec.json.decode(str(saved), type=Recipe)
    except msgspec.MsgspecError:
        return False
    return msgspec.structs.replace(known, steps=recipe.steps) == recipe
