"""One protocol tells of progress, and ends work."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import scaleport
from scaleport.batch.run import upscale_files
from scaleport.errors import Cancelled, ScaleportError
from scaleport.evaluation.run import EvaluationOptions, evaluate
from scaleport.export.exporter import export
from scaleport.export.plan import ExportOptions
from scaleport.imaging.files import Image, save_image
from scaleport.progress import Cancellation, Steps, part
from scaleport.runtimes.file import upscale_file
from scaleport.runtimes.view import TilePolicy


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(3)
    folder = tmp_path / "in"
    folder.mkdir()
    paths = [folder / f"{name}.png" for name in "abc"]
    for path in paths:
        save_image(path, Image(rng.integers(0, 256, (20, 26, 3), np.uint8)))
    return paths


@pytest.fixture
def upscaler(tiny_bundle):
    with scaleport.load(
        tiny_bundle("liif"), "onnxruntime", threads=1, policy=TilePolicy(tile=8)
    ) as loaded:
        yield loaded


def cancelling(calls: int) -> tuple[Cancellation, list[tuple[float, float | None, str]]]:
    """A progress function that has its work ended, as another thread would, after some calls."""
    seen: list[tuple[float, float | None, str]] = []

    def note(done: float, total: float | None, text: str, /) -> None:
        seen.append((done, total, text))
        if len(seen) == calls:
            ender = threading.Thread(target=work.cancel)
            ender.start()
            ender.join()

    work = Cancellation(note)
    return work, seen


def test_a_cancelled_picture_leaves_no_file(tmp_path, pictures, upscaler):
    work, seen = cancelling(2)
    with pytest.raises(Cancelled):
        upscale_file(upscaler, pictures[0], tmp_path / "out.png", scale=2, progress=work)
    assert [done for done, _, _ in seen] == [1, 2]
    assert {total for _, total, _ in seen} == {12}
    assert work.cancelled
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.raises(Cancelled):  # it stays so
        work(0, 1, "")


def test_cancelling_ends_a_whole_run_and_is_no_failure_of_one_picture(tmp_path, pictures, upscaler):
    work, seen = cancelling(20)  # within the second of three
    outcomes = []
    with pytest.raises(Cancelled):
        upscale_files(
            upscaler,
            [tmp_path / "in"],
            f"{tmp_path}/out/",
            scale=2,
            tell=outcomes.append,
            progress=work,
        )
    assert len(seen) == 20
    assert "2/3 " in seen[-1][2]
    assert seen == sorted(seen, key=lambda told: told[0])
    assert all(outcome.error is None for outcome in outcomes)
    left = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert left <= {"a_x2.png"}


def test_an_error_in_a_progress_function_fails_one_picture(tmp_path, pictures, upscaler):
    def break_on_b(done: float, total: float | None, text: str, /) -> None:
        if done and text.endswith("b.png") and done % 1:
            raise ValueError("no such bar")

    report = upscale_files(
        upscaler, [tmp_path / "in"], f"{tmp_path}/out/", scale=2, progress=break_on_b
    )
    assert [path.name for path, _ in report.failures] == ["b.png"]
    assert report.made == 2


def test_a_cancelled_export_leaves_no_bundle(tmp_path, tiny_checkpoint):
    work, seen = cancelling(1)
    with pytest.raises(Cancelled):
        export(tiny_checkpoint("liif"), tmp_path / "m.bundle", ExportOptions(("onnx",)), work)
    assert seen == [(0, None, "measuring the receptive field")]
    assert list(tmp_path.iterdir()) == []


def test_scoring_can_be_cancelled(pictures, tiny_bundle):
    work, seen = cancelling(2)
    options = EvaluationOptions(scales=(2.0,), backend="onnxruntime", threads=1)
    with pytest.raises(Cancelled):
        evaluate(tiny_bundle("liif"), pictures[0].parent, options, work)
    assert [(done, total) for done, total, _ in seen] == [(0, 3), (1, 3)]


def test_cancelled_is_let_through_by_code_that_notes_failures():
    assert not issubclass(Cancelled, Exception)
    assert not issubclass(Cancelled, ScaleportError)


def test_steps_are_counted_and_parts_are_shares_of_the_whole():
    told = []
    steps = Steps(lambda *now: told.append(now))
    steps("one")
    steps("two")
    assert told == [(0, None, "one"), (1, None, "two")]
    told.clear()
    piece = part(lambda *now: told.append(now), 10, 30, 50, "piece")
    piece(1, 4, "")
    piece(3, 4, "more")
    piece(0, None, "")
    assert told == [(15, 50, "piece"), (25, 50, "more"), (10, 50, "piece")]
