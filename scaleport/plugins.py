"""Parts that other installed packages bring, found through their entry points."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from scaleport.errors import PluginError

ENCODERS = "scaleport.encoders"
UPSAMPLERS = "scaleport.upsamplers"
BACKENDS = "scaleport.backends"


@cache
def claims(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Entry points of a group by name, sorted; more than one where packages claim the same."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, origin(point))):
        found.setdefault(point.name, []).append(point)
    return {name: tuple(points) for name, points in found.items()}


def origin(point: EntryPoint) -> str:
    """The distribution that an entry point comes from."""
    return "an unknown package" if point.dist is None else point.dist.name


def origins(points: Iterable[EntryPoint]) -> str:
    """The distributions of entry points, for a message."""
    return " and ".join(map(origin, points))


def load(kind: str, points: tuple[EntryPoint, ...]) -> Any:
    """What the entry point of one name stands for: a module or a class.

    Args:
        kind: what it should be, for messages.
        points: the name's entry points.

    Raises:
        PluginError: if it cannot be imported, or more than one package claims the name. The message
            names the packages.
    """
    point = points[0]
    if len(points) > 1:
        raise PluginError(
            f"{kind} {point.name!r} is claimed by {origins(points)}; uninstall all but one"
        )
    try:
        return point.load()
    except Exception as error:
        raise PluginError(refusal(kind, point, error)) from error


def refusal(kind: str, point: EntryPoint, reason: object) -> str:
    """One line about a plug-in that cannot be used."""
    said = (str(reason).splitlines() or [""])[0]
    if isinstance(reason, Exception):
        said = f"{type(reason).__name__}: {said}" if said else type(reason).__name__
    return f"{kind} {point.name!r} of the package {origin(point)} cannot be loaded: {said}"
