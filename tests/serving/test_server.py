"""A real server: mixed requests, bad ones, and a worker killed in the middle. Needs MLServer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).parents[2] / "benchmarks/serve_load.py"


@pytest.mark.slow
def test_no_answer_is_wrong_and_none_is_lost(tiny_bundle) -> None:
    pytest.importorskip("mlserver", reason="MLServer (extra serve) is not installed")
    options = ["--requests", "60", "--bad", "22", "--kill", "--port", "18480"]
    command = [sys.executable, str(LOAD), str(tiny_bundle("liif", "onnx")), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    report = json.loads(ran.stdout)
    assert (report["right"], report["wrong"], report["errors"]) == (60, 0, 0)
    assert report["killed_worker"]
    assert len(report["refused"]) == 22
    assert report["not_refused"] == []
    assert any(line.startswith("model_infer_request_success_total") for line in report["metrics"])
