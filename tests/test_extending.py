"""The package of docs/extending.md: installed as pip would do it, then used in every way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"

USE = """
    import json
    import sys
    from pathlib import Path

    import numpy as np
    import torch
    from forms import check_forms, check_onnx, count, make

    import scaleport
    from scaleport.export.exporter import ExportOptions, export_bundle
    from scaleport.grid import Grid
    from scaleport.models import ENCODERS, UPSAMPLERS, build_network, load_checkpoint
    from scaleport.models import save_checkpoint
    from scaleport.models.macs import count as count_macs

    assert "toy_encoder" not in sys.modules and "toy_upsampler" not in sys.modules
    config = {
        "encoder": {"name": "toy-separable", "width": 12, "blocks": 2},
        "upsampler": {"name": "toy-linear", "hidden": 10},
        "normalisation": {"mean": [0.5, 0.4, 0.3], "std": 0.5},
    }

    def network():
        made = make(config)
        with torch.no_grad():
            for name, buffer in made.named_buffers():
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
                elif name.endswith("running_mean"):
                    buffer.normal_()
        return made

    check_forms(config)
    check_onnx(config, dtypes=(torch.float32,), openvino=False)
    work = count_macs(network())
    assert work.deploy.render < work.training.render

    save_checkpoint(network(), Path("toy.safetensors"))
    again = load_checkpoint("toy.safetensors")
    options = ExportOptions(formats=("onnx",), precisions=("fp32",))
    manifest = export_bundle(Path("toy.safetensors"), Path("toy.bundle"), options)
    assert manifest.model["encoder"]["name"] == "toy-separable"
    image = np.random.default_rng(0).random((2, 3, 13, 9), dtype=np.float32)
    with torch.no_grad():
        want = again(torch.from_numpy(image), Grid.from_scale(13, 9, (2, 3.5))).numpy()
    for backend in ("torch", "onnxruntime", "onnx-reference"):
        up = scaleport.load("toy.bundle", backend=backend)
        assert up.backend == backend
        error = np.abs(up(image, (2, 3.5)) - want).max()
        assert error < 1e-5, (backend, error)
    print(up.device)
"""


def files() -> dict[str, str]:
    """The code blocks of the page that begin with the name of a file."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return dict(found)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pip would put into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    given = files()
    project = given.pop("pyproject.toml")
    info = folder / "toy_sr-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-sr\nVersion: 1.0\n")
    # Tables of entry points are the same in both files but for the quotes.
    tables = re.findall(r'^\[project\.entry-points\."(.+)"\]\n((?:.+\n)+)', project, re.MULTILINE)
    points = "".join(f"[{group}]\n{body}\n" for group, body in tables).replace('"', "")
    (info / "entry_points.txt").write_text(points)
    for name, text in given.items():
        (folder / name).write_text(text)
    return folder


def run(installed: Path, cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    paths = [installed, ROOT / "tests" / "models", ROOT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, *args]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=400
    )


def test_page_has_one_file_each() -> None:
    assert set(files()) == {
        "pyproject.toml",
        "toy_encoder.py",
        "toy_upsampler.py",
        "toy_backend.py",
    }


def test_package_exports_and_runs(installed: Path, tmp_path: Path) -> None:
    ran = run(installed, tmp_path, "-c", textwrap.dedent(USE))
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.splitlines()[-1] == "numpy"


COMMANDS = """
    import json
    import sys
    from pathlib import Path

    import torch

    from scaleport.cli.main import main
    from scaleport.export.exporter import ExportOptions, export_bundle
    from scaleport.models import build_network, save_checkpoint

    torch.manual_seed(0)
    config = {
        "encoder": {"name": "edsr", "width": 4, "blocks": 1},
        "upsampler": {"name": "liif", "hidden": [8]},
    }
    save_checkpoint(build_network(config).eval(), Path("m.safetensors"))
    options = ExportOptions(formats=("onnx",), precisions=("fp32",))
    export_bundle(Path("m.safetensors"), Path("m.bundle"), options)
    own = ["--backend", "onnx-reference", "--json"]
    lines = {
        "validate": ["validate", "m.bundle", "--precision", "fp32"],
        "bench": ["bench", "m.bundle", "--size", "9", "--scale", "2", "--rounds", "1"],
        "bisect": ["bisect", "m.bundle"],
        "doctor": ["doctor", "m.bundle"],
    }
    lines["bench"] += ["--pytorch", "none"]
    for name, line in lines.items():
        print(f"== {name}", flush=True)
        assert main([*line, *own]) == 0, name
"""


@pytest.mark.slow  # the whole grid, in an evaluator that is slow by design
def test_the_backend_passes_parity_bench_bisect_and_doctor(installed: Path, tmp_path: Path) -> None:
    ran = run(installed, tmp_path, "-c", textwrap.dedent(COMMANDS))
    assert ran.returncode == 0, ran.stderr[-3000:]
    parts = re.split(r"^== (\w+)\n", ran.stdout, flags=re.MULTILINE)[1:]
    told = {name: json.loads(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    rows = {row["mode"]: row for row in told["validate"]["summary"]}
    assert set(rows) == {"staged", "whole", "tiled"}
    assert sum(row["cases"] for row in rows.values()) > 100
    assert all(row["passed"] == row["cases"] for row in rows.values())
    (measured,) = told["bench"]["rows"]
    assert (measured["contender"], measured["peak_mib"] > 0) == ("onnx-reference", True)
    stages = {stage["stage"]: stage for stage in told["bisect"]["compared"]}
    assert set(stages) == {"encode", "render", "whole"}
    assert all(stage["matched"] > 0 for stage in stages.values())
    assert told["bisect"]["divergence"] is None
    assert all(check["ok"] for check in told["doctor"]["checks"])
    assert [tile["passed"] for tile in told["doctor"]["golden_tile"]] == [True]
    assert {c["stage"] for c in told["doctor"]["operations"]["onnx-reference"]} == {
        "encode",
        "render",
    }


def test_command_line_lists_it(installed: Path, tmp_path: Path) -> None:
    ran = run(installed, tmp_path, "-m", "scaleport.cli.main", "inspect", "--models")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.search(r"toy-separable +toy-sr +width=32, blocks=4\n", ran.stdout)
    assert re.search(r"toy-linear +toy-sr +hidden=32\n", ran.stdout)
    ran = run(installed, tmp_path, "-m", "scaleport.cli.main", "doctor")
    assert "onnx-reference" in ran.stdout
