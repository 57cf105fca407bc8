"""Files of weights: read without running code, unwrapped, and measured.

A ``.pth`` file is a pickle, which can hold any code; only tensors and plain containers are ever
read from it.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from scaleport.errors import ArtifactError
from scaleport.models.importers import flax

State = dict[str, Tensor]
Description = Mapping[str, Any]
"""What a file says of its model: ``name`` and ``args``, or nothing."""

_SHOWN = 5


class Refused(ValueError):
    """Why a file is not imported, without its name."""


def read(path: Path) -> Any:
    """What a file holds: tensors and plain values.

    Raises:
        ArtifactError: if it cannot be read or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(path.read_bytes())
        if path.suffix in flax.SUFFIXES:
            return flax.read_flax(path)
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path} is damaged, or holds objects other than tensors, which could run code; save "
            "its state_dict alone with torch.save"
        ) from error
    except Exception as error:
        # A damaged archive fails in torch's reader or anywhere in the unpickler.
        # Of these only torch's own error says in words what is wrong.
        said = str(error).splitlines() if isinstance(error, RuntimeError) else []
        reason = f": {said[0]}" if said else ""
        raise ArtifactError(f"{path} is not a file that torch.load can read{reason}") from error


def mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An entry that is a mapping; an empty one if it is anything else."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def none(reason: str, keys: Iterable[str]) -> None:
    """Refuse a file because of keys, of which the first few are named.

    Raises:
        Refused: if there are any.
    """
    found = sorted(keys)
    if found:
        rest = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise Refused(f"{reason} {', '.join(found[:_SHOWN])}{rest}")


def size(state: State, key: str, dim: int, rank: int) -> int:
    """One dimension of a weight that the others follow from."""
    if key not in state:
        raise Refused(f"it is not whole: missing are {key}")
    shape = state[key].shape
    if len(shape) != rank or shape[dim] < 1:
        raise Refused(f"{key} has an unexpected shape {list(shape)}")
    return int(shape[dim])


def count(state: State, template: str) -> int:
    """How many keys match, ``#`` being any number.

    Numbers that do not count up from 0 show as missing keys later.
    """
    pattern = re.compile(re.escape(template).replace(r"\#", r"\d+"))
    return len([key for key in state if pattern.fullmatch(key)])


def counts(state: State, template: str) -> list[int]:
    """How many keys match, by the first of two numbers ``#`` in the template."""
    pattern = re.compile(re.escape(template).replace(r"\#", r"(\d+)"))
    found: dict[str, int] = {}
    for key in state:
        match = pattern.fullmatch(key)
        if match is not None:
            found[match[1]] = found.get(match[1], 0) + 1
    return [found[number] for number in sorted(found, key=lambda text: (len(text), text))]


def root(number: int, key: str) -> int:
    """The square root of a size."""
    side = math.isqrt(number)
    if side * side != number:
        raise Refused(f"{key} has an unexpected size: {number} is no square")
    return side


def ratio(part: int, whole: int) -> float:
    """The quotient of two sizes, such that ``int(whole * quotient)`` gives the first again."""
    quotient = part / whole
    return quotient if int(whole * quotient) == part else (part + 0.5) / whole


def fit(key: str, value: Tensor, like: Tensor) -> Tensor:
    """A weight in our shape: what they keep as a 1x1 convolution may be a matrix here.

    Raises:
        Refused: if it does not fit, is of another kind, or holds NaN or infinity.
    """
    if value.layout != torch.strided or value.is_floating_point() != like.is_floating_point():
        kind = "floating-point" if like.is_floating_point() else "integer"
        raise Refused(f"{key} is not a plain {kind} tensor")
    expected, got = tuple(like.shape), tuple(value.shape)
    if got not in (expected, (*expected, 1, 1)):
        raise Refused(f"{key} has shape {list(got)} instead of {list(expected)}")
    value = value.detach().to(like.dtype).reshape(expected)
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise Refused(f"{key} holds NaN or infinity")
    return value
