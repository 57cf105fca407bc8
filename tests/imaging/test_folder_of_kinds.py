"""One run over a folder of everything: each file is right, or named with the true reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pictures import Sample, samples

import scaleport
from scaleport.cli.main import main
from scaleport.imaging.files import load_image

COUNT = 200
SUFFIXES = {"PNG": ".png", "TIFF": ".tif", "JPEG": ".jpg", "BMP": ".bmp", "WebP": ".webp"}
SUFFIXES |= {"GIF": ".gif", "AVIF": ".avif", "PFM": ".pfm"}


def some_samples() -> list[Sample]:
    """The same ones in every run."""
    found: list[Sample] = []

    @seed(20)
    @settings(
        max_examples=COUNT, phases=[Phase.generate], database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(sample=samples(), noise=st.integers(0, 2**32))
    def collect(sample: Sample, noise: int) -> None:
        found.append(sample)

    collect()
    return found[:COUNT]


@pytest.mark.slow
def test_a_folder_of_everything(tiny_bundle, tmp_path, capfd) -> None:
    (tmp_path / "in").mkdir()
    whole, broken = {}, set()
    made = some_samples()
    assert len(made) == COUNT
    for number, sample in enumerate(made):
        suffix = next((s for kind, s in SUFFIXES.items() if kind in sample.name), ".pnm")
        path = tmp_path / "in" / f"{number:03}{suffix}"
        if number % 4:
            path.write_bytes(sample.data)
            whole[str(path)] = sample
        else:
            path.write_bytes(sample.data[: len(sample.data) * 2 // 3])
            broken.add(str(path))
    bundle = str(tiny_bundle("liif"))
    options = ["-m", bundle, "-s", "2", "-o", f"{tmp_path}/out/", "--format", "tiff", "--json"]
    code = main(["upscale", str(tmp_path / "in"), *options])
    result = json.loads(capfd.readouterr().out)
    images = {image["input"]: image for image in result["images"]}
    failures = {failure["input"]: failure["error"] for failure in result["failures"]}
    assert code == (6 if failures else 0)
    assert images.keys() | failures.keys() == whole.keys() | broken
    assert not images.keys() & failures.keys()
    assert failures.keys() <= broken
    up = scaleport.load(bundle, result["backend"])
    for path, image in images.items():
        source = load_image(path).pixels
        if path in whole:
            sample = whole[path]
            close = np.abs(source.astype(float) - sample.pixels) <= sample.tolerance
            assert close.all(), sample.name
        expected = up(source, 2)
        np.testing.assert_allclose(
            load_image(image["output"]).pixels.astype(float), expected, atol=1
        )
    for path, error in failures.items():
        assert path in error
        assert any(word in error for word in ("damaged", "does not begin", "0 bytes")), error
