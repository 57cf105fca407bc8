"""A folder of made-up images, and a small bundle that was calibrated on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from calibration_samples import SAMPLING, write_fragile, write_images

from scaleport.calibration.quantiser import CalibrationOptions, Quantiser
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions


@pytest.fixture(scope="session")
def images(shared) -> Path:
    return shared("calibration-images", lambda path: write_images(path, 5))


@pytest.fixture(scope="session")
def fragile(shared) -> Path:
    return shared("fragile.safetensors", write_fragile)


@pytest.fixture(scope="session")
def tiny_int8(tiny_checkpoint, images, shared) -> Callable[..., Path]:
    """Function from a tiny network's name to its bundle with fp32 and int8 graphs."""

    def get(name: str) -> Path:
        def make(path: Path) -> None:
            # Random weights make poor pictures: what is tested here is not quality.
            settings = CalibrationOptions(max_loss=3.0, sampling=SAMPLING, threads=1)
            quantiser = Quantiser(images, settings)
            options = ExportOptions(formats=("onnx", "openvino"), precisions=("fp32", "int8"))
            export_bundle(tiny_checkpoint(name), path, options, quantise=quantiser)

        return shared(f"{name}-int8.bundle", make)

    return get
