"""The card of a checkpoint: what its makers say of it, read from ``weights/NAME.md``.

A card is Markdown for people. Three parts of it are read here: the first paragraph, the table below
``## Scores`` and the text below ``## Limits``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from scaleport.errors import ArtifactError

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_RULE = re.compile(r"[|:\- ]+")
_SHOWN_FIRST = ("Set5", "JPEG 75")
"""Rows that stand for a whole table of scores, by their first cell."""


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        summary: the first paragraph.
        protocol: how the scores were measured.
        scores: rows of the table, PSNR in dB by column: the set or the kind of picture, ``scale``,
            ``bicubic``, ``this network``, ``gain``.
        limits: what the network does not do.
    """

    summary: str
    protocol: str
    scores: tuple[dict[str, str], ...]
    limits: str

    @property
    def headline(self) -> str:
        """The most telling scores in one line: ``Set5 x2 37.46 (+3.78), x4 31.63 (+3.20)``."""
        first = next(iter(self.scores[0]))
        kinds = [row[first] for row in self.scores]
        kind = next((kind for kind in _SHOWN_FIRST if kind in kinds), kinds[0])
        parts = [
            f"{row['scale']} {row['this network']} ({row['gain']})"
            for row in self.scores
            if row[first] == kind and row["scale"] in ("x2", "x4")
        ]
        return f"{kind} {', '.join(parts)}"


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        ArtifactError: if the file cannot be read, or one of the parts is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"cannot read the card {path}; install scaleport again") from error
    head, *parts = _HEADING.split(text)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    paragraphs = [part for part in head.split("\n\n") if not part.startswith(("#", "|"))]
    scores = sections.get("Scores", "")
    rows = [line for line in scores.splitlines() if line.startswith("|")]
    if not paragraphs or len(rows) < 3 or "Limits" not in sections:
        raise ArtifactError(f"the card {path} lacks a summary, scores or limits")
    header, *cells = (_cells(row) for row in rows if not _RULE.fullmatch(row))
    return Card(
        summary=_plain(paragraphs[0]),
        protocol=_plain(scores.split("\n|")[0]),
        scores=tuple(dict(zip(header, row, strict=True)) for row in cells),
        limits=_plain(sections["Limits"]),
    )


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())
