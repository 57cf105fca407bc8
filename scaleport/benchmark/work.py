"""How many multiply-adds an upscale is made of."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from scaleport.bundle.manifest import Manifest
from scaleport.catalogue import Work, catalogue
from scaleport.errors import ScaleportError
from scaleport.grid import Grid
from scaleport.runtimes.scales import native_scale


def deploy_work(manifest: Manifest) -> Work | None:
    """Multiply-adds of the deploy form: from the catalogue, or counted where torch is installed.

    None where it is neither known nor can be counted.
    """
    for entry in catalogue().networks:
        if _same(entry.config, manifest.model):
            return entry.macs.deploy
    if find_spec("torch") is None:
        return None
    from scaleport.models.macs import count
    from scaleport.models.network import build_network

    try:
        return count(build_network(manifest.model)).deploy
    except (ScaleportError, RuntimeError):  # a plug-in's part, or one that only runs on real data
        return None


def macs(work: Work, manifest: Manifest, grid: Grid) -> float:
    """Multiply-adds of one upscale.

    What tiles compute twice is not counted, and neither is the resampling from a lattice.
    """
    height, width = grid.input_size
    rendered = grid.output_size[0] * grid.output_size[1]
    if manifest.family == "lattice":
        rendered = height * width * native_scale(manifest, grid) ** 2
    return work.encode * height * width + work.render * rendered


def _same(known: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    there = catalogue()
    return all(
        _full(known[part], options) == _full(found.get(part, {}), options)
        for part, options in (("encoder", there.encoders), ("upsampler", there.upsamplers))
    )


def _full(part: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A part with the defaults of what it does not say."""
    return {**options.get(part.get("name", ""), {}), **part}
