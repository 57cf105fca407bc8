"""The pages of the documentation as the tests see them: their code blocks, run or not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
SHELL = "bash"

BUNDLE = "scaleport-any.bundle"
PHOTO = np.random.default_rng(8).integers(0, 256, (64, 52, 3), np.uint8)

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+?) -->\n+)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: the file that it stands in.
        number: its place among the blocks of its page, from 1.
        language: what is written behind the fence.
        text: the lines between the fences.
        not_run: why no test runs it, as a comment in front of it says; empty for most.
    """

    page: Path
    number: int
    language: str
    text: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}-{self.number}"

    @property
    def file(self) -> str:
        """The name that its first line gives it as a comment, such as ``# test_photo.py``."""
        named = re.match(r"(?:#|//) (\S+\.\w+)\n", self.text)
        return named[1] if named else ""

    def commands(self) -> Iterator[list[str]]:
        """Its lines as words, comments left out; a line may go on behind a backslash."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def blocks(page: Path) -> list[Block]:
    """Every fenced code block of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, number, found["language"], found["text"], found["reason"] or "")
        for number, found in enumerate(_BLOCK.finditer(text), 1)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
