"""Right pictures that are damaged: right pixels or a refusal, never other pixels.

The input is a stream of choices for the property test in tests/imaging, which writes pictures of
every kind whose pixels are known.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("VIPS_WARNING", "0")

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "imaging"))

with atheris.instrument_imports(include=["scaleport"]):
    import scaleport.imaging.files  # noqa: F401

from harness import run, scratch
from hypothesis import given, settings
from pictures import Sample, samples
from test_property import OPTIONS, check, garbage, places

FOLDER = scratch()

logging.getLogger("pyvips").setLevel(logging.ERROR)


@settings(database=None, **OPTIONS)
@given(sample=samples(), part=places, place=places, damage=garbage)
def damaged(sample: Sample, part: float, place: float, damage: bytes) -> None:
    """One picture, whole, cut short and overwritten."""
    check(FOLDER, sample, part, place, damage)


def target(data: bytes) -> None:
    """Have Hypothesis make its choices from the input."""
    damaged.hypothesis.fuzz_one_input(data)


if __name__ == "__main__":
    run(target)
