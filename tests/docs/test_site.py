"""``make docs``: the site builds without a warning, and shows what the program has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import scaleport
from scaleport import errors
from scaleport.cli.main import VERBS

ROOT = Path(__file__).parents[2]

pytest.importorskip("material", reason="MkDocs Material (extra docs) is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as ``make docs`` builds it: links and anchors to nothing are warnings."""
    made = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(made)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stderr
    return made


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = [p.relative_to(ROOT / "docs").with_suffix(".html") for p in ROOT.glob("docs/**/*.md")]
    assert pages
    assert [page for page in pages if not (site / page).is_file()] == []


def test_what_the_repository_holds_beside_the_pages_is_reached(site: Path) -> None:
    """Links that leave ``docs/`` lead to copies, whose own links lead on."""
    card = site / "project/scaleport/weights/scaleport-s.html"
    assert card.is_file()
    page = (site / "weights.html").read_text(encoding="utf-8")
    assert 'href="project/scaleport/weights/scaleport-s.html"' in page


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_reference_with_its_options(site: Path, verb: str) -> None:
    page = (site / "reference/commands.html").read_text(encoding="utf-8")
    section = page.split(f'<h2 id="{verb}">')[1].split("<h2")[0]
    assert "<code>-q, --quiet</code>" in section
    assert f"scaleport {verb}" in section


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    documented = set(re.findall(r"^(\S+) py:", zlib.decompress(inventory).decode(), re.MULTILINE))
    names = {f"scaleport.{name}" for name in scaleport.__all__ if not name.startswith("_")}
    classes = {
        f"scaleport.errors.{name}"
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.ScaleportError)
    }
    assert len(classes) > 10
    assert names | classes <= documented
    assert "scaleport.Upscaler.__call__" in documented


def test_pages_ask_no_other_host_for_anything(site: Path) -> None:
    """Neither fonts nor scripts: the site can be read without a network."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img)[^>]* src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', text)
        assert [address for address in loaded if re.match(r"(https?:)?//", address)] == []
