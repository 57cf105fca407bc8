"""A backend that fails in any way: an error that names it, and no picture, not even half of one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runtimes"))

from numpy_backend import NumpySession, numpy_stages, write_bundle

from scaleport.errors import BackendError, NotFiniteError
from scaleport.imaging.files import Image, save_image
from scaleport.runtimes.file import upscale_file
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.view import TilePolicy


def raising(value):
    raise RuntimeError("the device\nwas lost")


FAULTS = {
    "raises": (raising, "RuntimeError: the device was lost"),
    "NaN": (lambda v: np.where(v > v.min(), v, np.float32("nan")), "NaN or infinity"),
    "infinity": (lambda v: np.where(v > v.min(), v, np.float32("inf")), "NaN or infinity"),
    "a row too few": (lambda v: v[:, :, :-1], "the backend is at fault"),
    "no rows": (lambda v: v[:, :, :0], "the backend is at fault"),
    "a column too many": (lambda v: np.concatenate([v, v[..., :1]], 3), "the backend is at fault"),
    "a channel too few": (lambda v: v[:, :2], "the backend is at fault"),
    "no batch": (lambda v: v[0], "the backend is at fault"),
    "two batches": (lambda v: v[None], "the backend is at fault"),
    "integers": (lambda v: v.astype(np.int32), "the backend is at fault"),
    "a list": (lambda v: v.tolist(), "the backend is at fault"),
    "nothing": (lambda v: None, "the backend is at fault"),
}


@pytest.fixture(params=["query", "lattice"])
def upscaler(request, tmp_path: Path) -> Upscaler:
    bundle = write_bundle(tmp_path / "m.bundle", request.param)
    return Upscaler(numpy_stages(bundle), TilePolicy(tile=8))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (20, 20, 3), np.uint8)
    save_image(tmp_path / "photo.png", Image(pixels))
    return tmp_path / "photo.png"


def break_it(monkeypatch, stage: str, fault, after: int) -> list[int]:
    """Spoil the output of a stage from its n-th run on."""
    real, runs = NumpySession.run, []

    def run(self, feeds, keep=()):
        made = real(self, feeds, keep)
        if self.stage != stage:
            return made
        runs.append(1)
        if len(runs) <= after:
            return made
        return {name: fault(value) for name, value in made.items()}

    monkeypatch.setattr(NumpySession, "run", run)
    return runs


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("after", [0, 5])
def test_fault_in_render(upscaler, picture, tmp_path, monkeypatch, kind: str, after: int) -> None:
    fault, words = FAULTS[kind]
    runs = break_it(monkeypatch, "render", fault, after)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(BackendError) as caught:
        upscale_file(upscaler, picture, tmp_path / "out.png", 2.0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert len(runs) == after + 1, "it went on after the fault"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["raises", "NaN", "nothing", "a list", "no batch", "integers"])
def test_fault_in_encode(upscaler, picture, tmp_path, monkeypatch, kind: str) -> None:
    fault, words = FAULTS[kind]
    break_it(monkeypatch, "encode", fault, 2)
    with pytest.raises(BackendError, match=words if kind == "raises" else "stage 'encode'"):
        upscale_file(upscaler, picture, tmp_path / "out.png", 2.0)
    assert not (tmp_path / "out.png").exists()


def test_an_older_picture_survives_the_fault(upscaler, picture, tmp_path, monkeypatch) -> None:
    (tmp_path / "out.png").write_bytes(b"yesterday's")
    break_it(monkeypatch, "render", FAULTS["NaN"][0], 5)
    with pytest.raises(NotFiniteError) as caught:
        upscale_file(upscaler, picture, tmp_path / "out.png", 2.0)
    assert caught.value.stage == "render"
    assert (tmp_path / "out.png").read_bytes() == b"yesterday's"


def test_a_backend_that_recovers_works_again(upscaler, monkeypatch) -> None:
    image = np.random.default_rng(4).random((20, 20, 3)).astype(np.float32)
    expected = upscaler(image, 2.0)
    with monkeypatch.context() as patch:
        break_it(patch, "render", raising, 3)
        with pytest.raises(BackendError):
            upscaler(image, 2.0)
    np.testing.assert_array_equal(upscaler(image, 2.0), expected)
