"""One-file checkpoints: safetensors that carry their own configuration.

A checkpoint may come from anywhere. Nothing in it is code; its header is bounded and strict, and
its configuration may not ask for more than its weights fill: a few bytes of it can ask for any
number of layers of any width. A network that wants more than the file holds is given up at the
first parameter beyond that, before its memory is touched.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.modules import module as torch_module

from scaleport.atomic import write_bytes
from scaleport.bundle.integrity import refuse_duplicates, refuse_excess
from scaleport.errors import ArtifactError, PluginError, UsageError, first_line, one_line
from scaleport.models.network import Network, build_network

FORMAT_VERSION = 1
MAX_HEADER_BYTES = 16 << 20
_KEY = "scaleport"
_MOST_DIMENSIONS = 16
MOST_MODULES = 100_000


def save_checkpoint(network: Network, path: Path, info: dict[str, Any] | None = None) -> None:
    """Write a network's weights and configuration to one safetensors file.

    Args:
        network: the network; its parameters are stored as float32.
        path: target; replaced only when the new file is complete.
        info: anything worth keeping about its making (data, steps, seed, scores), JSON values.

    Raises:
        OutputError: if the file cannot be written.
    """
    meta = {"format_version": FORMAT_VERSION, "config": network.config, "info": info or {}}
    state = {k: v.detach().float().contiguous().cpu() for k, v in network.state_dict().items()}
    data = safetensors.torch.save(state, {_KEY: json.dumps(meta, sort_keys=True)})
    write_bytes(path, data)


def read_metadata(path: Path) -> dict[str, Any]:
    """The ``config`` and ``info`` of a checkpoint, without its weights.

    Raises:
        ArtifactError: if the file is not a Scaleport checkpoint or is damaged.
    """
    return _read_header(path)[0]


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """``config`` and ``info``, and how many numbers the weights hold."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("no safetensors header is that long")
            data = file.read(length)
        refuse_duplicates(data)
        header = json.loads(data)
        text = header["__metadata__"][_KEY]
        refuse_duplicates(text)
        meta = json.loads(text)
        version, config, info = meta["format_version"], meta["config"], meta.get("info", {})
        for part in (config, info):
            refuse_excess(part, "the configuration")
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        elements = sum(_elements(shape) for shape in shapes)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError, TypeError, RecursionError, MemoryError):
        hint = "; import it first" if path.suffix in {".pth", ".pt", ".ckpt"} else ""
        raise ArtifactError(f"{path} is not a Scaleport checkpoint{hint}") from None
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has checkpoint format {one_line(version)}, this version reads {FORMAT_VERSION}"
        )
    # A header can claim any shape; the bytes of the file cannot be claimed.
    elements = min(elements, path.stat().st_size)
    return {"config": config, "info": info}, elements


def _elements(shape: Any) -> int:
    """How many numbers a shape holds; ValueError if it is none."""
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError("a shape is a short list")
    # In Python, true is an integer and a text times an integer a longer text.
    if any(type(size) is not int or not 0 <= size < 1 << 40 for size in shape):
        raise ValueError("a shape holds small integers")
    return math.prod(shape)


def load_checkpoint(path: Path | str) -> Network:
    """Build the network of a checkpoint and load its weights, in eval mode.

    Raises:
        ArtifactError: if the file is damaged, of another format, or does not fit its
            configuration.
    """
    path = Path(path)
    metadata, elements = _read_header(path)
    try:
        with bounded(elements):
            network = build_network(metadata["config"])
    except PluginError:
        raise
    except UsageError as error:
        raise ArtifactError(f"{path}: {one_line(error)}") from error
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        network.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = one_line(first_line(error))
        raise ArtifactError(f"{path} does not hold the weights it declares: {reason}") from error
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise ArtifactError(f"{path}: weight {name} holds NaN or infinity")
    return network.eval()


@contextlib.contextmanager
def bounded(elements: int) -> Iterator[None]:
    """Refuse, inside the block and in this thread, modules that are larger than a file.

    Args:
        elements: how many numbers the weights of the file hold. Parameters may hold twice that,
            for one may be registered in two places; buffers, of which some are computed and not
            stored, as many as that and at least a million.

    Raises:
        UsageError: inside the block, from the constructor that goes beyond.
    """
    thread = threading.get_ident()
    left = {"parameters": 2 * elements, "buffers": max(elements, 1 << 20), "modules": MOST_MODULES}

    def spend(what: str, amount: int) -> None:
        if threading.get_ident() != thread:
            return
        left[what] -= amount
        if left[what] < 0:
            raise UsageError(
                f"its configuration asks for more {what} than the file has weights for"
            )

    def parameter(_module: Any, _name: str, value: Tensor | None) -> None:
        spend("parameters", 0 if value is None else value.numel())

    def buffer(_module: Any, _name: str, value: Tensor | None) -> None:
        spend("buffers", 0 if value is None else value.numel())

    def child(_module: Any, _name: str, _child: Any) -> None:
        spend("modules", 1)

    hooks = (
        torch_module.register_module_parameter_registration_hook(parameter),
        torch_module.register_module_buffer_registration_hook(buffer),
        torch_module.register_module_module_registration_hook(child),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
