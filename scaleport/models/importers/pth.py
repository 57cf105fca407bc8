"""Weights that other projects saved with ``torch.save``.

A ``.pth`` file is a pickle, which can hold any code; only tensors and plain containers are ever
read from it. A layout is recognised by its key names, widths and depths are read off the shapes,
and every key must have a place: weights that are silently left out make a different network.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scaleport.errors import ArtifactError, UsageError
from scaleport.models.network import Network, build_network

State = dict[str, Tensor]

_SHOWN = 5


class _Refused(ValueError):
    """Why a file is not imported, without its name."""


@dataclass(frozen=True)
class _Layout:
    """One recognised layout of weights.

    ``plan`` maps the weights, and what else the file says of the model, to our configuration and
    to the table of our names by theirs. A file that is recognised may hold ``unused`` keys.
    """

    title: str
    marks: tuple[str, ...]
    plan: Callable[[State, Mapping[str, Any]], tuple[dict[str, Any], dict[str, str]]]
    unused: frozenset[str] = frozenset()


def import_pth(path: Path | str) -> Network:
    """Read a ``.pth`` file of a known layout into a network, in eval mode.

    Known are EDSR-LIIF of the LIIF project and EDSR-IGConv of the IGConv project, at any width
    and depth. From a file with averaged weights (``params_ema``) those are taken. What such a file
    does not say is set as published: the normalisation, the residual scale (0.1 at 256 channels
    and 32 blocks, else 1) and, for IGConv, the scales 2, 3 and 4.

    Raises:
        ArtifactError: if the file cannot be read, holds anything but tensors and plain values,
            or is of no known layout; if a key is missing or has no place; or if a weight has the
            wrong shape, is not floating point, or holds NaN or infinity.
    """
    path = Path(path)
    content = _read(path)
    try:
        state, description = _unwrap(content)
        return _build(state, description).eval()
    except (_Refused, UsageError) as error:
        raise ArtifactError(f"{path} cannot be imported: {error}") from error


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
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


def _unwrap(content: Any) -> tuple[State, Mapping[str, Any]]:
    """The weights in a file, and its own description of the model where there is one."""
    description: Mapping[str, Any] = {}
    if isinstance(content, dict):
        model = content.get("model")
        if isinstance(model, dict) and isinstance(model.get("sd"), dict):
            content, description = model["sd"], model
        else:
            for key in ("params_ema", "params", "state_dict"):
                if isinstance(content.get(key), dict):
                    content = content[key]
                    break
    if not isinstance(content, dict) or not content:
        raise _Refused("it holds no weights by name")
    state = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise _Refused(f"its entry {key!r} is not a named tensor")
        state[key.removeprefix("module.")] = value
    if len(state) != len(content):
        raise _Refused("it holds the same weights twice, with and without 'module.'")
    return state, description


def _build(state: State, description: Mapping[str, Any]) -> Network:
    for layout in _LAYOUTS:
        if all(mark in state for mark in layout.marks):
            break
    else:
        known = ", ".join(layout.title for layout in _LAYOUTS)
        raise _Refused(f"its weights are of no known layout; known: {known}")
    config, names = layout.plan(state, description)
    there = set(state) - layout.unused
    _none(f"it is not a plain {layout.title}: no place for", there - set(names))
    _none(f"it is not a whole {layout.title}: missing are", set(names) - there)
    network = build_network(config)
    target = network.state_dict()
    weights = {ours: _fit(theirs, state[theirs], target[ours]) for theirs, ours in names.items()}
    network.load_state_dict(weights)
    return network


def _none(reason: str, keys: set[str]) -> None:
    if keys:
        shown = sorted(keys)[:_SHOWN]
        rest = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        raise _Refused(f"{reason} {', '.join(shown)}{rest}")


def _fit(key: str, value: Tensor, like: Tensor) -> Tensor:
    """A weight in our shape: what they keep as a 1x1 convolution is a matrix here."""
    if not value.is_floating_point() or value.layout != torch.strided:
        raise _Refused(f"{key} is not a plain floating-point tensor")
    expected = tuple(like.shape)
    if tuple(value.shape) not in (expected, (*expected, 1, 1)):
        raise _Refused(f"{key} has shape {list(value.shape)} instead of {list(expected)}")
    value = value.detach().float().reshape(expected)
    if not torch.isfinite(value).all():
        raise _Refused(f"{key} holds NaN or infinity")
    return value


def _width(state: State, key: str, dim: int, rank: int) -> int:
    """One dimension of a weight that the others follow from."""
    shape = state[key].shape
    if len(shape) != rank or shape[dim] < 1:
        raise _Refused(f"{key} has an unexpected shape {list(shape)}")
    return int(shape[dim])


def _depth(state: State, pattern: str) -> int:
    """How many keys match; numbers that do not count up from 0 show as missing keys later."""
    return sum(re.fullmatch(pattern, key) is not None for key in state)


def _pair(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}


def _edsr(width: int, blocks: int) -> dict[str, Any]:
    published_large = (width, blocks) == (256, 32)
    scale = 0.1 if published_large else 1.0
    return {"name": "edsr", "width": width, "blocks": blocks, "residual_scale": scale}


def _mlp(state: State, prefix: str, ours: str, rank: int) -> tuple[list[int], dict[str, str]]:
    """Hidden widths and names of an MLP whose layers alternate with activations."""
    layers = _depth(state, re.escape(prefix) + r"\.\d+\.weight")
    names: dict[str, str] = {}
    for i in range(layers):
        names |= _pair(f"{prefix}.{2 * i}", f"{ours}.{2 * i}")
    _none("its decoder is not whole: missing are", set(names) - set(state))
    return [_width(state, f"{prefix}.{2 * i}.weight", 0, rank) for i in range(layers - 1)], names


def _plan_liif(
    state: State, description: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    _check_liif_description(description)
    width = _width(state, "encoder.head.0.weight", 0, 4)
    blocks = _depth(state, r"encoder\.body\.\d+\.body\.0\.weight")
    hidden, names = _mlp(state, "imnet.layers", "upsampler.mlp", 2)
    inputs = _width(state, "imnet.layers.0.weight", 1, 2)
    if inputs != 9 * width + 4:
        raise _Refused(
            f"its decoder takes {inputs} values; LIIF with feature unfolding and cell decoding "
            f"takes {9 * width + 4}, and other variants are not supported"
        )
    names |= _pair("encoder.head.0", "encoder.head")
    names |= _pair(f"encoder.body.{blocks}", "encoder.tail")
    for i in range(blocks):
        names |= _pair(f"encoder.body.{i}.body.0", f"encoder.body.{i}.conv1")
        names |= _pair(f"encoder.body.{i}.body.2", f"encoder.body.{i}.conv2")
    encoder = _edsr(width, blocks)
    spec = _mapping(_mapping(description, "args"), "encoder_spec")
    given = _mapping(spec, "args").get("res_scale")
    if given is not None:
        encoder["residual_scale"] = given
    config = {
        "encoder": encoder,
        "upsampler": {"name": "liif", "hidden": hidden},
        "normalisation": {"mean": [0.5, 0.5, 0.5], "std": 0.5},
        "scale": {"min": 1.0, "max": 30.0},
    }
    return config, names


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _check_liif_description(description: Mapping[str, Any]) -> None:
    """Refuse variants whose weights look the same and mean something else."""
    if description.get("name", "liif") != "liif":
        raise _Refused(f"it says that its model is {description['name']!r}, not 'liif'")
    args = _mapping(description, "args")
    for switch in ("local_ensemble", "feat_unfold", "cell_decode"):
        if not args.get(switch, True):
            raise _Refused(f"it is a LIIF without {switch}, a variant that is not supported")


def _plan_igconv(
    state: State, description: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    del description  # this project saves none
    width = _width(state, "conv_first.weight", 0, 4)
    blocks = _depth(state, r"body\.\d+\.conv1\.weight")
    latent = _width(state, "upsample.freq", 1, 4)
    hidden, names = _mlp(state, "upsample.query_kernel", "upsampler.mlp", 4)
    names |= _pair("conv_first", "encoder.head")
    names |= _pair("conv_after_body", "encoder.tail")
    names |= _pair("upsample.phase", "upsampler.phase")
    names |= {f"upsample.{name}": f"upsampler.{name}" for name in ("freq", "amplitude")}
    for i in range(blocks):
        names |= _pair(f"body.{i}.conv1", f"encoder.body.{i}.conv1")
        names |= _pair(f"body.{i}.conv2", f"encoder.body.{i}.conv2")
    config = {
        "encoder": _edsr(width, blocks),
        "upsampler": {
            "name": "igconv",
            "scales": [2, 3, 4],
            "max_s": 4,
            "latent": latent,
            "hidden_layers": len(hidden),
        },
        "normalisation": {"mean": [0.4488, 0.4371, 0.404], "std": 1.0},
    }
    return config, names


_LAYOUTS = (
    _Layout(
        "EDSR-LIIF",
        ("encoder.head.0.weight", "imnet.layers.0.weight"),
        _plan_liif,
        # Mean shifts that are saved with the encoder and never called by it.
        frozenset(
            f"encoder.{shift}_mean.{part}"
            for shift in ("sub", "add")
            for part in ("weight", "bias")
        ),
    ),
    _Layout("EDSR-IGConv", ("conv_first.weight", "upsample.freq"), _plan_igconv),
)
