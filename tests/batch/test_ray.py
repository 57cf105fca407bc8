"""On Ray: the same bytes as a local run, the same failures, the same resuming."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import scaleport
from scaleport.batch.journal import JOURNAL_NAME
from scaleport.batch.plan import plan
from scaleport.batch.ray import Setup, run_on_ray
from scaleport.batch.run import run
from scaleport.batch.work import Request
from scaleport.cli.main import main
from scaleport.errors import BackendError, ImageError
from scaleport.imaging.files import Image, save_image
from scaleport.runtimes.base import SessionOptions
from scaleport.runtimes.view import TilePolicy


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != JOURNAL_NAME}


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray (extra ray) is not installed"
)
def test_ray_makes_what_a_local_run_makes(tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    rng = np.random.default_rng(4)
    for number in range(7):
        pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
        save_image(Path("in") / f"{number}.png", Image(pixels))
    Path("in/4.png").write_bytes(b"not an image")
    bundle = tiny_bundle("igconv").absolute()
    policy = TilePolicy(tile=16)
    setup = Setup(bundle, "onnxruntime", "fp32", SessionOptions(1), policy)
    request = Request.of(2.5)
    upscaler = scaleport.load(bundle, "onnxruntime", "fp32", 1, policy=policy)
    local = run(upscaler, plan(["in"], "local/", request.tag).jobs, request)
    jobs = plan(["in"], "ray/", request.tag).jobs
    told = []
    made = run_on_ray(setup, jobs, request, workers=2, tell=told.append)
    assert contents(Path("ray")) == contents(Path("local"))
    assert [o.result for o in made] == [o.result for o in local]
    assert [o.job for o in made] == list(jobs)
    assert len(told) == len(made)
    failed = [o for o in made if o.error is not None]
    assert [o.job.source.name for o in failed] == ["4.png"]
    assert isinstance(failed[0].error, ImageError)
    # A local run goes on from what Ray's made, and Ray's from that.
    Path("ray/3_x2.5.png").unlink()
    again = run(upscaler, jobs, request, resume=True)
    assert [o.job.target.name for o in again if o.result and not o.kept] == ["3_x2.5.png"]
    kept = run_on_ray(setup, jobs, request, workers=1, resume=True)
    assert sum(o.kept for o in kept) == 6
    # A model that cannot be loaded fails once.
    broken = Setup(bundle, "onnxruntime", "fp32", SessionOptions(1, "NoSuchProvider"), policy)
    with pytest.raises(BackendError, match="NoSuchProvider"):
        run_on_ray(broken, jobs, request, workers=1)


def test_without_ray_the_extra_is_named(tmp_path, tiny_bundle, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    save_image("a.png", Image(np.zeros((8, 8, 3), np.uint8)))
    line = ["upscale", "a.png", "-m", str(tiny_bundle("igconv")), "-s", "2"]
    assert main([*line, "--engine", "ray"]) == 3
    assert capsys.readouterr().err.endswith("pip install 'scaleport[ray]'\n")
    assert main([*line, "--engine", "abacus"]) == 2
    assert main([*line, "--address", "10.0.0.1:6379"]) == 2
