"""Where weights lie in a file, and what wrappers put in front of their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from scaleport.models.importers.reading import Description, Refused, State

PLACES = (
    "params_ema",
    "params-ema",
    "params",
    "model_state_dict",
    "state_dict",
    "model",
    "net_g_ema",
    "net_g",
    "netG",
    "generator",
    "net",
)
"""Where the weights may lie in a file, the best first."""

PREFIXES = (
    "module.",
    "_orig_mod.",
    "net_g_ema.",
    "net_g.",
    "netG.",
    "generator.",
    "net.",
    "model.",
)
"""What wrappers put in front of every name: parallel, compiled and trained modules."""

_DEEPEST = 4
_AVERAGED = "n_averaged"
"""A counter that torch's averaging wrapper keeps beside the weights."""


def unwrap(content: Any) -> tuple[State, Description]:
    """The weights in a file, and its own description of the model where there is one.

    The weights are the whole file or lie under one of :data:`PLACES`, the first that is there,
    which may be so again one level down; or under the only entry there is.

    Raises:
        Refused: if there are no named tensors.
    """
    description: Description = {}
    for _ in range(_DEEPEST):
        if not isinstance(content, dict):
            break
        if isinstance(content.get("sd"), dict):
            content, description = content["sd"], content
            break
        inner = _inside(content)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict) or not content:
        raise Refused("it holds no weights by name")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise Refused(f"its entry {key!r} is not a named tensor")
        state[key.removeprefix("module.")] = value
    if len(state) != len(content):
        raise Refused("it holds the same weights twice, with and without 'module.'")
    if len(state) > 1:
        state.pop(_AVERAGED, None)
    return state, description


def _inside(content: dict[Any, Any]) -> dict[Any, Any] | None:
    """The mapping that holds the weights of another one; None if it holds them itself."""
    for key in PLACES:
        if isinstance(content.get(key), dict):
            return dict(content[key])
    only = next(iter(content.values())) if len(content) == 1 else None
    return dict(only) if isinstance(only, dict) else None


def without_prefixes(state: State) -> Iterator[State]:
    """The weights by their names, then by shorter ones without what wrappers put in front.

    A prefix is taken off where every name has it. Some networks have names that all begin like
    that of a wrapper; the caller takes the first that is a network.
    """
    while True:
        yield state
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None)
        if prefix is None or prefix in state:
            return
        state = {key.removeprefix(prefix): value for key, value in state.items()}
