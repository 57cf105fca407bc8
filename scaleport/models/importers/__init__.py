"""Importers: weights in other projects' files, as networks of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaleport.errors import ArtifactError, UsageError
from scaleport.models.importers import eqsr, fixed, hiif, igconv, liif, lte, msit, thera
from scaleport.models.importers.foreign import import_foreign
from scaleport.models.importers.layouts import Imported, WrongSetting, recognise
from scaleport.models.importers.reading import Refused, read
from scaleport.models.importers.wrapping import unwrap, without_prefixes

LAYOUTS = (
    lte.LAYOUT,
    liif.LIIF,
    hiif.LAYOUT,
    msit.LAYOUT,
    liif.FIXED,
    igconv.IGCONV,
    eqsr.LAYOUT,
    thera.LAYOUT,
    fixed.WINDOWED_FIXED,
    fixed.EDSR_PYTORCH,
)
"""Kinds of files that are known, the first that fits is taken."""


def import_file(
    path: Path | str,
    scales: Sequence[int] | None = None,
    foreign: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Imported:
    """Read a file of a known layout into a network, at any width and depth.

    What such a file does not say is set as published and listed in the result.

    Args:
        path: ``.pth``, ``.pt`` or ``.safetensors``; ``.pkl`` of a JAX program.
        scales: integer scales that an IGConv was trained on, where they are not 2, 3 and 4.
        foreign: take it as a network of one scale of any kind that the package spandrel knows.
        settings: what the file does not say, by ``PART.OPTION``: any option of ``encoder``,
            ``upsampler``, ``normalisation`` or ``scale``, such as ``encoder.residual_scale``.

    Raises:
        ArtifactError: if the file cannot be read, holds anything but tensors and plain values,
            or is of no known layout; if a key is missing or has no place; or if a weight has the
            wrong shape, is not floating point, or holds NaN or infinity.
        UsageError: if scales are given for a network that has none to choose, or a setting is
            unknown, is refused, or does not fit the weights.
    """
    path = Path(path)
    given = None if scales is None else tuple(sorted(set(scales)))
    if given == ():
        raise UsageError("no scales are given")
    if foreign and settings:
        raise UsageError("a network that spandrel builds has no options to set")
    content = read(path)
    try:
        state, description = unwrap(content)
        if foreign:
            found = import_foreign(state)
        else:
            names = (s for s in without_prefixes(state) if any(known.fits(s) for known in LAYOUTS))
            found = recognise(LAYOUTS, next(names, state), description, given, settings or {})
    except WrongSetting:
        raise
    except (Refused, UsageError) as error:
        raise ArtifactError(f"{path} cannot be imported: {error}") from error
    if given is not None:
        _check_scales(found, given, settings or {}, path)
    return found


def _check_scales(
    found: Imported, given: tuple[int, ...], settings: Mapping[str, Any], path: Path
) -> None:
    if tuple(sorted(settings.get("upsampler.scales", given))) != given:
        raise UsageError("--scales and --set upsampler.scales say different things")
    if found.network.upsampler.native_scales != given:
        raise UsageError(f"{path} is {found.title}, whose scales are not for choosing")


__all__ = ["LAYOUTS", "Imported", "import_file"]
