"""PyTorch's switches for the arithmetic of float32, set for the time of a call.

The switches belong to the process, not to a thread. They are set while a network of ours queues
its operations and put back afterwards; calls that need another setting wait for each other, so
that each computes in what it asked for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

IEEE: Final = "ieee"
TF32: Final = "tf32"

_changed = threading.Condition()
_active = 0
_setting = ""
_saved: list[tuple[Any, str, Any]] = []


def _switches(setting: str) -> list[tuple[Any, str, Any]]:
    """Objects, attributes and values that make PyTorch compute float32 in a setting."""
    import torch

    backends: Any = torch.backends
    owners = [
        backends.cuda.matmul,
        getattr(backends.cudnn, "conv", None),
        getattr(getattr(backends, "mkldnn", None), "conv", None),
        getattr(getattr(backends, "mkldnn", None), "matmul", None),
    ]
    if hasattr(owners[0], "fp32_precision"):  # since PyTorch 2.9
        cpu = IEEE  # TF32 is arithmetic of GPUs
        values = [setting, setting, cpu, cpu]
        return [
            (owner, "fp32_precision", value)
            for owner, value in zip(owners, values, strict=True)
            if hasattr(owner, "fp32_precision")
        ]
    allowed = setting == TF32
    return [(backends.cuda.matmul, "allow_tf32", allowed), (backends.cudnn, "allow_tf32", allowed)]


def _begin_anew() -> None:
    """In a forked process: no call of the parent's other threads comes to its end here."""
    global _changed, _active
    _changed, _active = threading.Condition(), 0
    while _saved:
        owner, name, value = _saved.pop()
        setattr(owner, name, value)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def float32_arithmetic(setting: str) -> Iterator[None]:
    """Compute float32 in :data:`IEEE` arithmetic or in :data:`TF32` while the block runs."""
    global _active, _setting
    with _changed:
        while _active and _setting != setting:
            _changed.wait()
        if not _active:
            _setting = setting
            for owner, name, value in _switches(setting):
                _saved.append((owner, name, getattr(owner, name)))
                setattr(owner, name, value)
        _active += 1
    try:
        yield
    finally:
        with _changed:
            _active -= 1
            if not _active:
                while _saved:
                    owner, name, value = _saved.pop()
                    setattr(owner, name, value)
                _changed.notify_all()
