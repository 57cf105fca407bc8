"""Lengths that stand for themselves while a network is captured.

The length of a padded image is a quotient of another length, and PyTorch simplifies every size that
follows as an expression of it. For a deep network that cuts its features into windows this takes
longer than everything else together. A length that is a symbol of its own keeps those expressions
short; afterwards the symbol is exchanged for what it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import torch
from torch import Tensor

OWN_LENGTHS: Final = "own_lengths"
"""Attribute that is true of modules that call :func:`own_length`."""

_active: ContextVar[bool] = ContextVar("active", default=False)

torch.library.define("scaleport::length", "(Tensor x, SymInt length, int least) -> SymInt")


def _length(x: Tensor, length: int, least: int) -> int:
    del x, least
    return length


def _symbol(x: Tensor, length: int, least: int) -> torch.SymInt:
    del x, length
    return torch.library.get_ctx().new_dynamic_size(min=least)


torch.library.impl("scaleport::length", "CompositeExplicitAutograd", _length)
torch.library.register_fake("scaleport::length", _symbol)


def own_length(length: int, least: int, like: Tensor) -> int:
    """The same length; inside :func:`own_symbols`, a symbol that nothing is known of.

    Args:
        length: a length of features, or how many windows there are along an axis.
        least: smallest value that it can have.
        like: any tensor that is captured.
    """
    # Lengths are SymInt while they are captured, whatever their annotation says.
    symbolic = isinstance(length, torch.SymInt)
    if not symbolic or not _active.get():
        return length
    found: int = torch.ops.scaleport.length(like, length, least)
    return found


@contextmanager
def own_symbols() -> Iterator[None]:
    """Let :func:`own_length` give symbols of their own."""
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)


def exchange_symbols(graph: torch.fx.Graph) -> None:
    """Put the lengths that symbols stand for in their places, in a captured graph.

    Before that, equal lengths become one: deep networks ask every layer for the same few.
    """
    first: dict[Any, torch.fx.Node] = {}
    for node in list(graph.nodes):
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.SymInt):
            known = first.setdefault(value.node.expr, node)
            if known is not node:
                node.replace_all_uses_with(known)
                graph.erase_node(node)
    for node in list(graph.nodes):
        if node.target is torch.ops.scaleport.length.default:
            length = node.args[1]
            assert isinstance(length, torch.fx.Node)
            node.replace_all_uses_with(length)
            graph.erase_node(node)
