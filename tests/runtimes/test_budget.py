"""The largest tile that keeps a process within its memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
from numpy_backend import numpy_stages, write_bundle

from scaleport.cli.options import bytes_of
from scaleport.errors import BackendError, OutOfMemoryError, UsageError
from scaleport.grid import Grid
from scaleport.imaging.convert import Layout
from scaleport.imaging.files import Image, load_image, save_image
from scaleport.runtimes import budget
from scaleport.runtimes.budget import Cost, Task, bytes_needed, fitting_policy, resident, watched
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.view import TilePolicy

RGB = Layout(3, np.dtype(np.uint8))
TASK = Task(Grid.from_scale(2000, 3000, 2.0), RGB)
MIB = 1 << 20

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")


@pytest.mark.parametrize(
    ("text", "count"),
    [("1GiB", 1 << 30), ("800MB", 800_000_000), ("2g", 2 << 30), ("1.5 MiB", 3 << 19), ("9", 9)],
)
def test_sizes_are_read(text, count):
    assert bytes_of("--max-memory", text) == count


@pytest.mark.parametrize("text", ["", "0", "-1GiB", "GiB", "1 ib", "much", "1e9", "1PiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="--max-memory"):
        bytes_of("--max-memory", text)


@linux
def test_a_peak_is_seen_and_its_end_too():
    before = resident()
    size, most = watched(lambda: int(np.ones(96 * MIB, np.uint8).sum()))
    assert size == 96 * MIB
    assert 90 * MIB < most - before < 130 * MIB
    assert resident() - before < 30 * MIB


def upscaler(path, tiling="exact", **policy):
    return Upscaler(numpy_stages(write_bundle(path, tiling=tiling)), TilePolicy(**policy))


def test_more_memory_is_larger_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "measure", lambda *_: Cost(200 * MIB, 5000.0))
    up = upscaler(tmp_path / "m.bundle", tile=256)
    tiles = [fitting_policy(up, [TASK], limit * MIB).tile for limit in (355, 400, 500, 700, 9000)]
    assert tiles == sorted(tiles)
    assert tiles[0] < tiles[2]
    assert tiles[-1] == 256
    assert fitting_policy(replace_tile(up, 0), [TASK], 9000 * MIB).tile == 512
    # Pictures in the making take their share, and so does the width of the output.
    assert fitting_policy(up, [TASK], 700 * MIB, held=5).tile < tiles[3]
    assert fitting_policy(up, [], MIB) == up.policy


def replace_tile(up, tile):
    return Upscaler(up.stages, replace(up.policy, tile=tile))


def test_need_grows_with_everything_that_takes_memory():
    def need(task=TASK, tile=128, halo=10, held=1, ramp=0, cost=5000.0):
        return bytes_needed(task, Cost(200 * MIB, cost), tile, halo, held, ramp)

    deep = replace(TASK, layout=Layout(4, np.dtype(np.uint16)))
    larger = [need(tile=256), need(tile=0), need(halo=40), need(held=3), need(ramp=8)]
    assert min(*larger, need(deep), need(cost=6000.0)) > need()


def test_what_does_not_fit_is_refused_with_what_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "measure", lambda *_: Cost(200 * MIB, 5000.0))
    with pytest.raises(OutOfMemoryError, match=r"tiles of 16 pixels it takes about [0-9]+ MiB"):
        fitting_policy(upscaler(tmp_path / "a.bundle"), [TASK], 100 * MIB)
    whole = upscaler(tmp_path / "b.bundle", "not-allowed")
    with pytest.raises(OutOfMemoryError, match="in one piece"):
        fitting_policy(whole, [TASK], 1000 * MIB)
    assert fitting_policy(whole, [TASK], 10**12).tile == 0


def test_a_system_that_does_not_say_is_an_error(monkeypatch):
    def refuse() -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "Process", refuse)
    with pytest.raises(BackendError, match="--tile"):
        resident()


CHILD = """
import re, sys
from pathlib import Path
from scaleport.cli.main import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


@linux
def test_the_process_stays_within_the_limit(tmp_path, tiny_bundle):
    """And the limit is what does it: the tiles that are chosen without it take more."""
    ramp = np.add.outer(np.arange(500), np.arange(520))[..., None] // np.array([3, 5, 7])
    save_image(tmp_path / "in.png", Image((ramp % 256).astype(np.uint8)))

    def peak(name, *options):
        model = ("-m", str(tiny_bundle("liif")), "--backend", "onnxruntime", "--threads", "1")
        line = ("upscale", str(tmp_path / "in.png"), *model, "-s", "2", "-q", *options)
        command = [sys.executable, "-c", CHILD, *line, "-o", str(tmp_path / name)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return int(ran.stdout) << 10

    free = peak("free.png", "--tile", "512")
    limit = free * 85 // 100
    held = peak("held.png", "--tile", "512", "--max-memory", str(limit))
    assert held <= limit < free
    a, b = (load_image(tmp_path / n).pixels.astype(int) for n in ("free.png", "held.png"))
    assert np.abs(a - b).max() <= 1
