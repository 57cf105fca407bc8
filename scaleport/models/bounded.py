"""Building a network from a file's configuration without trusting its sizes.

A configuration of a few bytes can ask for any number of layers of any width. Whoever builds from a
file knows how many weights the file holds: a network that wants more is given up at the first
parameter beyond them, before its memory is touched.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn.modules import module as torch_module

from scaleport.errors import UsageError

MOST_MODULES = 100_000


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
