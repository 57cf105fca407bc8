"""Packages that are called like a function: ``scaleport.export`` is a room of the code, and a verb.

Python binds a package that is imported to its name in the package around it, so that a function of
the same name there would be there or not, by what was imported before. The package is made to be
both.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


def call_as(package: str, home: str) -> None:
    """Have a package that is being imported stand for a function when it is called.

    Args:
        package: its name, of which the last part is that of the function.
        home: the module that defines the function; imported when it is called.
    """
    name = package.rpartition(".")[2]

    def function() -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(home), name)
        return found

    class CallablePackage(ModuleType):
        """A package that is also a function."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function()(*args, **kwargs)

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(function())

    sys.modules[package].__class__ = CallablePackage
