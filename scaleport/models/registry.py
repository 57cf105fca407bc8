"""Names of encoders and upsamplers, registered explicitly by the module that defines them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from scaleport.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """A named set of classes that are built from plain keyword options."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make a class known under ``name``; a name is taken only once."""

        def add(cls: type[T]) -> type[T]:
            if name in self._classes and self._classes[name] is not cls:
                raise UsageError(f"{self.kind} {name!r} is already registered")
            self._classes[name] = cls
            return cls

        return add

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def get(self, name: str) -> type[T]:
        """The class of a name.

        Raises:
            UsageError: if there is none; the message lists the names there are.
        """
        try:
            return self._classes[name]
        except KeyError:
            known = ", ".join(self) or "none"
            raise UsageError(f"unknown {self.kind} {name!r}; known: {known}") from None

    def options(self, name: str) -> dict[str, Any]:
        """Option names of a class with their defaults (``inspect.Parameter.empty`` if required)."""
        parameters = inspect.signature(self.get(name)).parameters.values()
        return {p.name: p.default for p in parameters}

    def create(self, name: str, given: dict[str, Any], **fixed: Any) -> T:
        """Build a registered class.

        Args:
            name: registered name.
            given: options from a configuration, checked against the constructor's signature.
            **fixed: arguments that the caller supplies, not the configuration.

        Raises:
            UsageError: if an option is unknown or missing, or its value is refused.
        """
        cls = self.get(name)
        allowed = self.options(name)
        unknown = sorted(set(given) - set(allowed) | set(given) & set(fixed))
        if unknown:
            raise UsageError(
                f"{self.kind} {name!r} has no option {', '.join(unknown)}; "
                f"known: {', '.join(sorted(set(allowed) - set(fixed)))}"
            )
        missing = [
            option
            for option, default in allowed.items()
            if default is inspect.Parameter.empty and option not in given and option not in fixed
        ]
        if missing:
            raise UsageError(f"{self.kind} {name!r} needs option {', '.join(missing)}")
        for option, value in given.items():
            _check_number(f"{self.kind} {name!r}: {option}", value, allowed[option])
        try:
            return cls(**given, **fixed)
        except UsageError:
            raise
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            # What a value of the wrong kind meets inside a constructor, or of torch's own checks.
            reason = (str(error).splitlines() or [""])[0]
            raise UsageError(f"{self.kind} {name!r} refuses its options: {reason}") from error


def _check_number(label: str, value: Any, default: Any) -> None:
    """Options whose default is a number must be numbers of that kind: weights depend on them."""
    if type(default) not in (int, float):
        return
    kinds = int if type(default) is int else (int, float)
    unbounded = isinstance(value, float) and not math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, kinds) or unbounded:
        kind = "an integer" if kinds is int else "a finite number"
        raise UsageError(f"{label} must be {kind}, got {value!r}")


ENCODERS: Registry[Any] = Registry("encoder")
"""Classes that follow :class:`scaleport.models.base.Encoder`."""
UPSAMPLERS: Registry[Any] = Registry("upsampler")
"""Classes that follow :class:`scaleport.models.base.Upsampler`."""
