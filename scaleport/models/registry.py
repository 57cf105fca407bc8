"""Names of encoders and upsamplers, registered explicitly by the module that defines them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar

from scaleport import plugins
from scaleport.errors import PluginError, UsageError, first_line
from scaleport.models.base import Encoder, Upsampler
from scaleport.plugins import claims, load, origin, refusal

T = TypeVar("T")


class Registry(Generic[T]):
    """A named set of classes that are built from plain keyword options.

    Other packages add to it through entry points, which are loaded when names are listed or one is
    asked for that is not registered yet. An entry point names a class, or a module that registers
    the name with the decorator.

    Args:
        kind: what the classes are, for messages.
        base: what they must be derived from.
        group: the entry points' group.
    """

    def __init__(self, kind: str, base: type, group: str) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._classes: dict[str, type[T]] = {}
        self._origins: dict[str, str] = {}
        self._refused: dict[str, PluginError] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make a class known under ``name``; a name is taken only once."""

        def add(cls: type[T]) -> type[T]:
            if name in self._classes and self._classes[name] is not cls:
                raise UsageError(f"{self.kind} {name!r} is already registered")
            self._classes[name] = cls
            return cls

        return add

    def __iter__(self) -> Iterator[str]:
        for name in claims(self.group):
            self._try(name)
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            self._try(name)
        return name in self._classes

    def origin(self, name: str) -> str:
        """The package that brought a name; empty for those of Scaleport itself."""
        return self._origins.get(name, "")

    def refused(self) -> dict[str, str]:
        """Names of plug-ins that cannot be used, with the reason in one line."""
        list(self)
        found = {name: str(error) for name, error in self._refused.items()}
        for name, points in claims(self.group).items():
            if name in self._classes and not self.origin(name):
                reason = "Scaleport has its own of that name"
                found[name] = refusal(self.kind, points[0], reason)
        return found

    def get(self, name: str) -> type[T]:
        """The class of a name.

        Raises:
            UsageError: if there is none; the message lists the names there are.
            PluginError: if another package claims the name and cannot be loaded.
        """
        self._try(name)
        if name in self._refused:
            raise self._refused[name]
        if name not in self._classes:
            known = ", ".join(self) or "none"
            # A module may bring more names than its own.
            if name not in self._classes:
                raise UsageError(f"unknown {self.kind} {name!r}; known: {known}")
        return self._classes[name]

    def _try(self, name: str) -> None:
        """Load the plug-in of a name that is not registered yet, once."""
        if name in self._classes or name in self._refused:
            return
        points = claims(self.group).get(name)
        if points is None:
            return
        before = dict(self._classes)
        try:
            self._take(name, points)
        except PluginError as error:
            # Nothing stays of a plug-in that is refused half way.
            self._classes = before
            self._refused[name] = error
        for added in self._classes.keys() - before.keys():
            self._origins[added] = origin(points[0])

    def _take(self, name: str, points: tuple[EntryPoint, ...]) -> None:
        loaded = load(self.kind, points)
        if isinstance(loaded, type):
            self._classes.setdefault(name, loaded)
        cls = self._classes.get(name)
        if cls is None:
            reason = f"{points[0].value} is neither a class nor a module that registers the name"
            raise PluginError(refusal(self.kind, points[0], reason))
        if not issubclass(cls, self._base):
            reason = f"{cls.__qualname__} is not derived from {self._base.__qualname__}"
            raise PluginError(refusal(self.kind, points[0], reason))

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
            reason = first_line(error)
            raise UsageError(f"{self.kind} {name!r} refuses its options: {reason}") from error


def _check_number(label: str, value: Any, default: Any) -> None:
    """Options whose default is a number must be numbers of that kind: weights depend on them.

    Those that are switched on or off are so by nothing else.
    """
    if type(default) is bool and type(value) is not bool:
        raise UsageError(f"{label} must be true or false, got {value!r}")
    if type(default) not in (int, float):
        return
    kinds = int if type(default) is int else (int, float)
    unbounded = isinstance(value, float) and not math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, kinds) or unbounded:
        kind = "an integer" if kinds is int else "a finite number"
        raise UsageError(f"{label} must be {kind}, got {value!r}")


ENCODERS: Registry[Any] = Registry("encoder", Encoder, plugins.ENCODERS)
"""Classes that follow :class:`scaleport.models.base.Encoder`."""
UPSAMPLERS: Registry[Any] = Registry("upsampler", Upsampler, plugins.UPSAMPLERS)
"""Classes that follow :class:`scaleport.models.base.Upsampler`."""
