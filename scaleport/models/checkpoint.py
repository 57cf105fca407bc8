"""One-file checkpoints: safetensors that carry their own configuration."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from scaleport.errors import ArtifactError, OutputError, UsageError
from scaleport.models.network import Network, build_network

FORMAT_VERSION = 1
_KEY = "scaleport"


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
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, Any]:
    """The ``config`` and ``info`` of a checkpoint, without its weights.

    Raises:
        ArtifactError: if the file is not a Scaleport checkpoint or is damaged.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 100_000_000:
                raise ValueError("no safetensors header is that long")
            header = json.loads(file.read(length))
        meta = json.loads(header["__metadata__"][_KEY])
        version, config, info = meta["format_version"], meta["config"], meta.get("info", {})
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError, TypeError, RecursionError, MemoryError):
        hint = "; import it first" if path.suffix in {".pth", ".pt", ".ckpt"} else ""
        raise ArtifactError(f"{path} is not a Scaleport checkpoint{hint}") from None
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has checkpoint format {version}, this version reads {FORMAT_VERSION}"
        )
    return {"config": config, "info": info}


def load_checkpoint(path: Path | str) -> Network:
    """Build the network of a checkpoint and load its weights, in eval mode.

    Raises:
        ArtifactError: if the file is damaged, of another format, or does not fit its
            configuration.
    """
    path = Path(path)
    try:
        network = build_network(read_metadata(path)["config"])
    except UsageError as error:
        raise ArtifactError(f"{path}: {error}") from error
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        network.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path} does not hold the weights it declares: {reason}") from error
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise ArtifactError(f"{path}: weight {name} holds NaN or infinity")
    return network.eval()
