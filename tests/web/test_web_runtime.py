"""The browser runtime against the Python one: the same grid, tiles and pixels."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from web_commands import WEB, run

NAMES = {"wasm": "WebAssembly", "webgpu": "WebGPU"}
FEATURES_LIE = {"wasm": "cpu", "webgpu": "gpu-buffer"}
TYPES = ["npx", "--no-install", "tsc", "--noEmit"]


def test_the_package_is_typed(node: str) -> None:
    run(TYPES)


def test_the_lock_file_names_no_package_host() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert len(lock["packages"]) > 10
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []
    assert "omit-lockfile-registry-resolved=true" in (WEB / ".npmrc").read_text()


def test_node_renders_what_python_renders(node: str, built: Path, vectors: Path) -> None:
    command = [node, "--test", "--test-reporter=tap", "build/test/node.test.mjs"]
    out = run(command, SCALEPORT_VECTORS=str(vectors))
    counts = dict(re.findall(r"^# (pass|fail|skipped) (\d+)$", out, re.MULTILINE))
    assert int(counts["pass"]) >= 10
    assert (counts["fail"], counts["skipped"]) == ("0", "0")


def is_right(case: dict) -> bool:
    # A PSNR of null is infinite.
    close = case["difference"] is not None and case["difference"] <= 1e-4
    return close and (case["psnr"] is None or case["psnr"] >= 80) and case["shown"] <= 1


@pytest.mark.parametrize("provider", ["wasm", pytest.param("webgpu", marks=pytest.mark.slow)])
def test_a_browser_renders_what_python_renders(
    node: str, browser: str, built: Path, vectors: Path, provider: str
) -> None:
    """WebGPU runs on a software adapter of the browser."""
    command = [node, "test/browser.mjs", "cases", str(vectors), provider]
    report = json.loads(run(command, SCALEPORT_CHROMIUM=browser))
    assert report["isolated"]
    assert report["faults"] == []
    assert max(report["resampled"]) <= 2e-6
    assert len(report["results"]) == 4 * 6
    for case in report["results"]:
        assert case["provider"].startswith(f"{NAMES[provider]} (")
    assert report["selfTest"]["passed"]
    assert [case for case in report["results"] if not is_right(case)] == []
    assert report["features"] == [FEATURES_LIE[provider]]
