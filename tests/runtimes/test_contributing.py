"""The backend of CONTRIBUTING.md, as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from scaleport.bundle.reader import open_bundle
from scaleport.runtimes import registry
from scaleport.runtimes.base import Backend, SessionOptions
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.upscaler import BundleSource, Upscaler, load
from scaleport.runtimes.view import TilePolicy
from scaleport.validation.pictures import picture

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the page."""
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(
        r"^```python\n# scaleport/runtimes/stopwatch\.py\n(.*?)^```$", text, re.M | re.S
    )
    module = ModuleType("stopwatch")
    monkeypatch.setitem(sys.modules, "stopwatch", module)
    exec(compile(code, "stopwatch.py", "exec"), module.__dict__)
    return module


def test_it_is_a_backend_that_gives_the_same_pixels(stopwatch, tiny_bundle) -> None:
    backend = stopwatch.StopwatchBackend()
    assert isinstance(backend, Backend)
    assert backend.rank > max(own.rank for own in registry.own_backends())
    source = BundleSource(open_bundle(tiny_bundle("liif")))
    stages = Stages(source, backend, backend.availability(), "fp32", SessionOptions())
    image = picture(13, 17)
    with Upscaler(stages, TilePolicy()) as timed:
        found = timed(image, 2.7)
    expected = load(tiny_bundle("liif"), "onnxruntime", "fp32")(image, 2.7)
    np.testing.assert_array_equal(found, expected)
    assert set(stopwatch.SPENT) == {"encode", "render"}
    assert all(seconds > 0 for calls in stopwatch.SPENT.values() for seconds in calls)
