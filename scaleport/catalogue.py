"""What is known of every named network: sizes, multiplications, scales, tiling, formats.

These are facts that do not depend on weights. They are counted once, by
``python -m tools.catalogue --write``, and read from a file of the package, so that
listing them takes no time and no torch.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from scaleport.bundle.manifest import ScaleRange
from scaleport.errors import ArtifactError

FILE = Path(str(files("scaleport"))) / "catalogue.json"
COMMAND = "python -m tools.catalogue --write"
"""What makes the file."""

Family = Literal["any scale", "several scales", "one scale"]
FAMILIES: dict[Family, str] = {
    "any scale": "every output pixel is decoded where it lies",
    "several scales": "one checkpoint renders integer scales, reduced in between",
    "one scale": "rendered at one integer scale and reduced below it",
}
"""Kinds of networks with what they answer, in the order in which they are listed."""


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Multiply-adds of one form of a network.

    What is counted are matrix products and convolutions; element-wise work, norms, softmax, scans
    and gathers are not.
    """

    prepare: int
    """Once per scale, in all."""
    encode: float
    """Per LR pixel. In the deploy form this includes what the upsampler does at LR size."""
    encoder: float
    """The encoder's own share of ``encode``."""
    render: float
    """Per output pixel."""

    def total(self, scale: float) -> float:
        """Multiply-adds per output pixel of ``encode`` and ``render`` together."""
        return self.encode / scale**2 + self.render

    def decoder(self, scale: float) -> float:
        """Of :meth:`total`, what is the upsampler's."""
        return (self.encode - self.encoder) / scale**2 + self.render


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Multiply-adds of a network in both forms, at one scale."""

    scale: int
    """x4, or the largest native scale of a network of fixed scale."""
    lr_size: tuple[int, int]
    """LR height and width they were counted at, a multiple of every window."""
    training: Work
    deploy: Work
    """With the render graph of the scale where the deploy form has one, else the general one."""
    deploy_general: float | None
    """Per output pixel of the render graph for any scale; None if there is no such graph."""


class Tiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether tiles give the pixels of the whole image, and why not."""

    kind: Literal["exact", "approximate", "not-allowed"]
    reasons: tuple[str, ...]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named network."""

    name: str
    family: Family
    paper: str
    parameters: int
    scale: ScaleRange
    tiling: Tiles
    rewrites: tuple[str, ...]
    """What the deploy form does differently, the encoder's rewrites first."""
    macs: Counts
    refusal: str
    """Why it cannot be exported, one sentence without a full stop; empty if it can."""
    refused_formats: dict[str, str]
    """Formats that cannot hold it, with the reason; the others can."""
    config: dict[str, Any]
    """What it is built from, and what ``model:`` of a training recipe takes."""
    config_sha256: str

    @property
    def parts(self) -> str:
        """Names of its encoder and upsampler."""
        return f"{self.config['encoder']['name']} + {self.config['upsampler']['name']}"


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be built without a plug-in."""

    encoders: dict[str, dict[str, Any]]
    """Options of every encoder with their defaults; ``required`` where there is none."""
    upsamplers: dict[str, dict[str, Any]]
    networks: tuple[Entry, ...]

    def find(self, name: str) -> Entry | None:
        """The network of a name."""
        return next((entry for entry in self.networks if entry.name == name), None)

    def matching(self, pattern: str) -> list[Entry]:
        """Networks whose name fits a pattern with ``*`` and ``?``."""
        return [entry for entry in self.networks if fnmatchcase(entry.name, pattern)]


@cache
def catalogue() -> Catalogue:
    """The catalogue of this installation.

    Raises:
        ArtifactError: if its file is missing or damaged.
    """
    try:
        return msgspec.json.decode(FILE.read_bytes(), type=Catalogue)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(
            f"the catalogue of networks cannot be read, install scaleport again: {error}"
        ) from error
