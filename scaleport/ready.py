"""Models by name: the bundles that come with the package, and those that were exported here.

``scaleport upscale photo.jpg -m scaleport-any`` and ``scaleport.load("scaleport-any")`` find a
bundle by the first of these that is there:

1. the path that was given, or ``NAME.bundle`` beside it;
2. the bundle ``NAME`` of this package, in ``scaleport/ready``;
3. the newest bundle called ``NAME`` in the cache of exports.

No torch is needed for any of it. ``make models`` writes the bundles of the package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from scaleport.card import Card, read_card
from scaleport.errors import ArtifactError, UsageError, did_you_mean
from scaleport.paths import holds
from scaleport.shipped import BUNDLE_SUFFIX, shipped_weights

READY: Final = Path(str(files("scaleport"))) / "ready"
"""Folder of the bundles in the package."""
CHECKPOINTS: Final = "checkpoints.json"
"""In :data:`READY`: SHA-256 of the checkpoint that each bundle was made of, by name."""

PURPOSES: Final = {
    "scaleport-photo": "photographs that were compressed or are noisy, up to x4",
    "scaleport-s": "clean pictures up to x4, the fastest",
    "scaleport-m": "clean pictures up to x4, the best quality",
    "scaleport-any": "clean pictures at any scale, beyond x4 too, up to x8",
}
"""What each named model is for; the first is the default one."""
DEFAULT: Final = "scaleport-photo"
"""The model of pictures for which none was named, up to its largest scale."""
DEFAULT_BEYOND: Final = "scaleport-any"
"""The model beyond that."""
DEFAULT_SCALE: Final = 2.0


@dataclass(frozen=True)
class Model:
    """A model that can be named.

    Attributes:
        name: the name for ``-m`` and :func:`scaleport.load`.
        purpose: its purpose in one line; empty for a bundle that was exported here.
        bundle: where its bundle is.
        scale: smallest and largest scale.
        native_scales: integer scales that it renders at; empty for a model of any scale.
        parameters: number of weights.
        license: licence of the weights; empty if it is not known.
        card: scores and limits; None for a bundle that was exported here.
    """

    name: str
    purpose: str
    bundle: Path
    scale: tuple[float, float]
    native_scales: tuple[int, ...]
    parameters: int
    license: str
    card: Card | None

    def __repr__(self) -> str:
        low, high = self.scale
        return f"Model({self.name!r}, x{low:g} to x{high:g})"


def purposes(indent: str = "  ") -> str:
    """Which model to take: lines of name and purpose, for help texts."""
    width = max(map(len, PURPOSES))
    return "\n".join(f"{indent}{name:{width}}  {what}" for name, what in PURPOSES.items())


def ready_bundles() -> dict[str, Path]:
    """Bundles that come with the package, by name, in the order of :data:`PURPOSES`."""
    there = {
        path.name.removesuffix(BUNDLE_SUFFIX): path
        for path in sorted(READY.glob(f"*{BUNDLE_SUFFIX}"))
    }
    ranked = sorted(there, key=lambda name: (*PURPOSES, name).index(name))
    return {name: there[name] for name in ranked}


def models() -> list[Model]:
    """The models that can be named here: those of the package, then those exported on this machine.

    No torch is needed.

    Raises:
        ArtifactError: if a bundle of the package is damaged.
    """
    from scaleport.export_cache import exported_bundles

    shipped = [_model(name, path) for name, path in ready_bundles().items()]
    names = {model.name for model in shipped}
    own = [_model(n, path) for n, path in exported_bundles().items() if n not in names]
    return shipped + own


def model(name: str) -> Model:
    """The model of a name, see :func:`models`.

    Raises:
        UsageError: if there is none; the message lists the names.
    """
    found = {one.name: one for one in models()}
    if name not in found:
        known = ", ".join(found) or "none"
        raise UsageError(f"there is no model {name}{did_you_mean(name, found)}; known: {known}")
    return found[name]


def find_bundle(given: Path | str) -> Path:
    """The bundle of a path or a name, as the module's text says.

    What is neither is returned as a path, for the reader of bundles to say what is wrong.
    """
    from scaleport.export_cache import exported_bundles

    path, name = Path(given), str(given)
    if holds(path.exists):
        return path
    beside = path.with_name(f"{path.name}{BUNDLE_SUFFIX}") if path.name else path
    if holds(beside.is_dir):
        return beside
    if len(path.parts) != 1:
        return path
    return ready_bundles().get(name) or exported_bundles().get(name) or path


def default_model(scale: float | None = None) -> str:
    """The name of the model to take where none was named.

    Args:
        scale: the larger of both scales that are wanted; None if it depends on the picture.

    Raises:
        UsageError: if this installation holds no models.
    """
    there = ready_bundles()
    if DEFAULT not in there:
        raise UsageError("this installation comes without models: make models, or give -m BUNDLE")
    if scale is not None and scale > _range(DEFAULT)[1] and DEFAULT_BEYOND in there:
        return DEFAULT_BEYOND
    return DEFAULT


def names_hint(given: Path | str) -> str:
    """What an error adds where a bundle is not there and a model's name may have been meant."""
    path = Path(given)
    if len(path.parts) != 1:
        return ""
    there = ready_bundles()
    meant = did_you_mean(path.name.removesuffix(BUNDLE_SUFFIX), there)
    if meant or path.suffix == BUNDLE_SUFFIX or not there:
        return meant
    return f"; models by name: {', '.join(there)}"


def larger_scales(largest: float) -> str:
    """What to do about a scale that is beyond a model: the model that makes it, if any."""
    able = {name: _range(name)[1] for name in ready_bundles() if _range(name)[1] >= largest}
    if not able:
        return "upscale twice, by a part of it each time"
    name = max(able, key=lambda name: able[name])
    return f"-m {name} makes up to x{able[name]:g}, or upscale twice"


def of_package(bundle: Path) -> bool:
    """Whether a bundle is one of those that come with the package."""
    return bundle.resolve().parent == READY.resolve()


def ready_checkpoint(bundle: Path, name: str) -> Path | None:
    """The checkpoint of a bundle that lies in the package and holds none of its own.

    The checkpoints lie in ``scaleport/weights``, so that they come with the package once.

    Returns:
        The file, whose hash is that of the export; None for any other bundle.

    Raises:
        ArtifactError: if the file is gone or another one.
    """
    from scaleport.bundle.integrity import sha256_file

    if not of_package(bundle):
        return None
    path, known = shipped_weights().get(name), _checkpoints().get(name)
    if path is None or known is None or sha256_file(path).sha256 != known:
        raise ArtifactError(
            f"{bundle} was not made from the checkpoint of this installation; install scaleport "
            "again, or run make models"
        )
    return path


@cache
def _checkpoints() -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((READY / CHECKPOINTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


@cache
def _range(name: str) -> tuple[float, float]:
    from scaleport.bundle.reader import read_manifest

    scale = read_manifest(ready_bundles()[name]).scale
    return scale.min, scale.max


def _model(name: str, bundle: Path) -> Model:
    from scaleport.bundle.reader import read_manifest

    manifest = read_manifest(bundle)
    card = shipped_weights()[name].with_suffix(".md") if name in ready_bundles() else None
    return Model(
        name=name,
        purpose=PURPOSES.get(name, "") if card else "",
        bundle=bundle,
        scale=(manifest.scale.min, manifest.scale.max),
        native_scales=manifest.scale.native,
        parameters=manifest.parameters,
        license=manifest.license,
        card=None if card is None else read_card(card),
    )
