"""A real server: mixed requests, bad ones, and a worker killed in the middle. Needs MLServer."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from scaleport.imaging.files import Image, load_image, save_image
from scaleport.runtimes.upscaler import load
from scaleport.serving.client import Client

# The server is a process of its own: importing MLServer here would register the messages of KServe
# a second time beside those of Triton's client.
NEEDS_MLSERVER = pytest.mark.skipif(
    find_spec("mlserver") is None, reason="MLServer (extra serve) is not installed"
)
LOAD = Path(__file__).parents[2] / "benchmarks/serve_load.py"


@pytest.mark.slow
@NEEDS_MLSERVER
def test_no_answer_is_wrong_and_none_is_lost(tiny_bundle) -> None:
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


DOCUMENT = Path(__file__).parents[2] / "docs/serving.md"
PORT = 18490


@pytest.mark.slow
@NEEDS_MLSERVER
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_command_of_the_page_is_answered(tiny_bundle, tmp_path: Path) -> None:
    (line,) = re.findall(r"^curl .*$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert "localhost:8080/" in line
    photo = np.random.default_rng(5).integers(0, 256, (33, 41, 3), np.uint8)
    save_image(tmp_path / "photo.jpg", Image(photo))
    bundle = tiny_bundle("liif", "onnx")
    serve = [sys.executable, "-m", "scaleport", "serve", str(bundle), "--port", str(PORT)]
    server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = Client(f"http://localhost:{PORT}")
        for _ in range(240):
            if client.ready():
                break
            assert server.poll() is None
            time.sleep(0.5)
        command = line.replace("localhost:8080/", f"localhost:{PORT}/")
        ran = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True, timeout=120
        )
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
    (output,) = json.loads(ran.stdout)["outputs"]
    assert output["name"] == "upscaled"
    (tmp_path / "answer.png").write_bytes(base64.b64decode(output["data"][0]))
    answer = load_image(tmp_path / "answer.png").pixels
    want = load(bundle, "onnxruntime")(load_image(tmp_path / "photo.jpg").pixels, 2.7)
    assert answer.shape == want.shape == (89, 111, 3)
    assert np.abs(answer.astype(int) - want.astype(int)).max() <= 1
