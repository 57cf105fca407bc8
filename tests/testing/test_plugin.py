"""The plug-in and the suite: right implementations pass, wrong ones fail, and say where."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from scaleport.grid import Grid
from scaleport.models import load_checkpoint
from scaleport.models.network import build_network
from scaleport.testing import OWN, ParitySuite


@pytest.fixture(scope="module")
def bundle(torch_bundle):
    """Quick to compare: a few weights, one native scale, and only torch can run it."""
    torch.manual_seed(4)
    encoder = {"name": "edsr", "width": 4, "blocks": 1}
    network = build_network({"encoder": encoder, "upsampler": {"name": "spconv", "scale": 2}})
    return torch_bundle(network)


def run(folder, text, *options):
    (folder / "test_mine.py").write_text(text)
    line = [sys.executable, "-m", "pytest", "-p", "scaleport.pytest_plugin", "-q", "-rs", *options]
    return subprocess.run(
        line, cwd=folder, capture_output=True, text=True, check=False, timeout=200
    )


APPLICATION = """
def test_parity(scaleport_case):
    scaleport_case.check()
"""

IMPLEMENTATION = """
def test_mine(scaleport_case):
    case = scaleport_case
    wrong = case.expected + (0.01 if case.case.shape.name == "prime" else 0)
    case.check(wrong)
"""


def test_an_application_tests_its_bundle(bundle, tmp_path):
    done = run(tmp_path, APPLICATION, f"--scaleport-bundle={bundle}", "--scaleport-backend=torch")
    assert done.returncode == 0, done.stdout
    count = len(ParitySuite(bundle).cases(["torch"]))
    assert count > 10
    assert f"{count} passed" in done.stdout


def test_an_implementation_that_is_wrong_somewhere(bundle, tmp_path):
    done = run(
        tmp_path, IMPLEMENTATION, f"--scaleport-bundle={bundle}", f"--scaleport-backend={OWN}"
    )
    assert done.returncode == 1
    assert "test_mine[own-fp32-staged-prime" in done.stdout
    assert "max abs 1.00e-02" in done.stdout
    failed = sum(c.case.shape.name == "prime" for c in ParitySuite(bundle).own_cases())
    assert f"{failed} failed" in done.stdout


def test_without_a_bundle_it_is_skipped_with_the_reason(tmp_path):
    done = run(tmp_path, APPLICATION)
    assert done.returncode == 0
    assert "give --scaleport-bundle PATH" in done.stdout


def test_a_wrong_option_is_one_line(tmp_path):
    done = run(tmp_path, APPLICATION, "--scaleport-bundle=attic.bundle")
    assert done.returncode != 0
    assert "attic.bundle" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_plug_in_imports_nothing_heavy(tmp_path):
    text = """
import sys
def test_nothing():
    assert "scaleport.pytest_plugin" in sys.modules
    assert not {"torch", "onnxruntime", "scaleport.testing"} & set(sys.modules)
"""
    assert run(tmp_path, text).returncode == 0


def test_own_implementation_through_the_api(bundle):
    suite = ParitySuite(bundle)
    network = load_checkpoint(suite.bundle.checkpoint())
    cases = suite.own_cases("fp16")
    assert {case.backend for case in cases} == {OWN}
    for case in cases[:3]:
        grid = Grid.from_scale(case.case.shape.height, case.case.shape.width, case.scale)
        with torch.inference_mode():
            mine = network(torch.from_numpy(case.image), grid).numpy()
        assert mine.shape[2:] == case.size
        assert case.check(mine).passed
    with pytest.raises(AssertionError, match=r"PSNR .* under 55"):
        cases[0].check(cases[0].expected + np.float32(0.01))
    with pytest.raises(AssertionError, match=r"own fp16 staged"):
        cases[0].check(cases[0].expected[:, :, 1:])
