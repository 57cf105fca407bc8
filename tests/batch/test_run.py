"""Many images: the pixels of one by one, whatever fails, is killed or is already there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import scaleport
from scaleport.batch.journal import JOURNAL_NAME
from scaleport.batch.run import FilesOptions, upscale_files
from scaleport.errors import BackendError, ImageError, ScaleportError
from scaleport.imaging.files import Image, save_image
from scaleport.runtimes.file import FileUpscale, upscale_file

KINDS = (".png", ".jpg", ".webp", ".tif")


def pictures(folder: Path, count: int) -> dict[str, bool]:
    """Small images of several kinds, and whether each is one at all."""
    folder.mkdir()
    rng = np.random.default_rng(11)
    names = {}
    for i in range(count):
        path = folder / f"{i:03}{KINDS[i % len(KINDS)]}"
        deep = path.suffix == ".tif"
        shape = (9 + i % 5, 8 + i % 7, 4 if path.suffix == ".png" and i % 3 == 0 else 3)
        high = 65536 if deep else 256
        save_image(path, Image(rng.integers(0, high, shape).astype("u2" if deep else "u1")))
        names[path.name] = i % 9 != 4
        if i % 9 == 4:
            path.write_bytes(path.read_bytes()[:60] if i % 2 else b"not an image")
    return names


@pytest.fixture(scope="module")
def upscaler(tiny_bundle):
    return scaleport.load(tiny_bundle("igconv"), "onnxruntime", threads=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != JOURNAL_NAME}


def test_pixels_are_those_of_one_by_one_and_failures_stop_nothing(tmp_path, upscaler):
    names = pictures(tmp_path / "in", 14)
    told = []
    report = upscale_files(
        upscaler, [tmp_path / "in"], str(tmp_path / "out"), scale=2, tell=told.append
    )
    (tmp_path / "single").mkdir()
    for name, good in names.items():
        if good:
            target = tmp_path / "single" / f"{Path(name).stem}_x2.png"
            upscale_file(upscaler, tmp_path / "in" / name, target, 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "single")
    assert [o.job.source.name for o in report.outcomes] == sorted(names)
    assert told == list(report.outcomes)
    bad = [path.name for path, _ in report.failures]
    assert bad == [name for name, good in names.items() if not good]
    assert all(isinstance(error, ImageError) for _, error in report.failures)
    assert (report.made, report.kept) == (len(names) - len(bad), 0)


def test_resume_keeps_what_is_finished_and_makes_the_rest(tmp_path, upscaler):
    names = pictures(tmp_path / "in", 8)
    out = tmp_path / "out"

    def run(**options):
        chosen = FilesOptions(**{"resume": True, **options})
        report = upscale_files(upscaler, [tmp_path / "in"], out, scale=2, options=chosen)
        return report.made, report.kept, len(report.failures)

    good = sum(names.values())
    assert run() == (good, 0, 8 - good)
    want = contents(out)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run() == (0, good, 8 - good)
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == times
    # Altered, gone, cut, and of another input.
    (out / "000_x2.png").write_bytes(want["001_x2.png"])
    (out / "001_x2.png").unlink()
    (out / "002_x2.png").write_bytes(want["002_x2.png"][:-1])
    shutil.copy(tmp_path / "in/000.png", tmp_path / "in/003.tif")
    assert run() == (4, good - 4, 8 - good)
    after = contents(out)
    assert {n: d for n, d in after.items() if d != want[n]}.keys() == {"003_x2.png"}
    # Other settings, and a run that was not asked to keep anything.
    assert run(bits=16)[1] == 0
    assert run(resume=False, bits=16)[1] == 0


def test_few_images_are_held_at_a_time_and_all_are_let_go(tmp_path, upscaler, monkeypatch):
    pictures(tmp_path / "in", 20)
    open_now, most, threads = set(), [], set()
    load, finish = FileUpscale.preload, FileUpscale.finish

    def preload(self):
        load(self)
        open_now.add(id(self))
        most.append(len(open_now))
        threads.add(threading.current_thread().name)

    def end(self):
        time.sleep(0.02)  # encoding is what is slow
        result = finish(self)
        open_now.discard(id(self))
        threads.add(threading.current_thread().name)
        return result

    monkeypatch.setattr(FileUpscale, "preload", preload)
    monkeypatch.setattr(FileUpscale, "finish", end)
    upscale_files(upscaler, [tmp_path / "in"], str(tmp_path / "out"), scale=2)
    assert open_now == set()
    assert 3 <= max(most) <= 6
    assert len(threads) == 2
    assert threading.current_thread().name not in threads


@pytest.mark.parametrize("step", ["preload", "render", "finish"])
def test_a_bug_that_one_image_meets_is_its_own_failure(tmp_path, upscaler, monkeypatch, step):
    pictures(tmp_path / "in", 4)
    real, calls = getattr(FileUpscale, step), []

    def second_fails(self, *args):
        calls.append(self)
        if len(calls) == 2:
            raise MemoryError if step == "render" else ZeroDivisionError("oops")
        return real(self, *args)

    monkeypatch.setattr(FileUpscale, step, second_fails)
    report = upscale_files(upscaler, [tmp_path / "in"], str(tmp_path / "out"), scale=2)
    assert report.made == 3
    ((path, error),) = report.failures
    assert path.name == "001.jpg"
    assert isinstance(error, ScaleportError)
    assert error.exit_code == (5 if step == "render" else 70)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        JOURNAL_NAME,
        *(f"{n}_x2.png" for n in ("000", "002", "003")),
    }


def test_a_model_that_cannot_be_loaded_fails_once_for_all(tmp_path, tiny_bundle):
    pictures(tmp_path / "in", 3)
    broken = scaleport.load(tiny_bundle("igconv"), "onnxruntime", device="NoSuchProvider")
    with pytest.raises(BackendError, match="NoSuchProvider"):
        upscale_files(broken, [tmp_path / "in"], str(tmp_path / "out"), scale=2)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# Runs a command and stops in the middle of writing the file of so many images.
STOPPED = """
    import os, sys, time
    from scaleport.cli.main import main
    from scaleport.imaging import writing

    real, left = writing.encode, [int(sys.argv[2])]

    def encode(image, path, *arguments):
        real(image, path, *arguments)
        left[0] -= 1
        if left[0] == 0:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), int(sys.argv[1]))
            time.sleep(1)
            path.write_bytes(data)

    writing.encode = encode
    sys.exit(main(sys.argv[3:]))
"""
MODEL = ("-m", "photo.bundle", "--backend", "onnxruntime", "--threads", "1")
LINE = ("upscale", "in", "-s", "2", *MODEL, "--json", "-o")


def command(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=500)


def interrupted(folder: Path, bundle: Path, count: int, number: int, code: int) -> None:
    """Stop a run in its middle, resume it, and hold it against one that was not stopped."""
    os.chdir(folder)
    (folder / "photo.bundle").symlink_to(bundle)
    names = pictures(folder / "in", count)
    good = sum(names.values())
    ran = command(STOPPED, str(number), str(good // 2), *LINE, "out")
    assert ran.returncode == code, ran.stderr
    ran = command(STOPPED, "0", "0", *LINE, "whole")
    assert ran.returncode == 6, ran.stderr
    want, half = contents(folder / "whole"), contents(folder / "out")
    finished = {name for name in half if not name.startswith(".")}
    assert 0 < len(finished) < good
    assert {name: half[name] for name in finished} == {name: want[name] for name in finished}
    left = half.keys() - finished
    assert bool(left) == (number == signal.SIGKILL)
    times = {name: (folder / "out" / name).stat().st_mtime_ns for name in finished}
    ran = command(STOPPED, "0", "0", *LINE, "out", "--resume")
    assert ran.returncode == 6
    assert contents(folder / "out") == want
    assert len(want) == good
    same = {n for n, t in times.items() if (folder / "out" / n).stat().st_mtime_ns == t}
    # The one whose record did not come about any more is made again.
    assert len(finished) - len(same) <= 1
    assert ran.stderr.count("error: ") == count - good


posix = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


@posix
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)],
    ids=["KILL", "TERM"],
)
def test_resumed_run_is_the_uninterrupted_one(tmp_path, tiny_bundle, monkeypatch, number, code):
    monkeypatch.chdir(tmp_path)
    interrupted(tmp_path, tiny_bundle("igconv"), 12, number, code)


@posix
@pytest.mark.slow
def test_two_hundred_images_and_kill_9(tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    interrupted(tmp_path, tiny_bundle("igconv"), 200, signal.SIGKILL, -signal.SIGKILL)
