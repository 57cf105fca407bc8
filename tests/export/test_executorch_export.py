"""The writer of ExecuTorch programs: who gets them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from scaleport.cli.main import main
from scaleport.errors import BackendError, ExportError, UsageError
from scaleport.export import write_executorch
from scaleport.export.plan import ExportOptions, ExportPlan
from scaleport.export.static import StaticShape
from scaleport.models import load_checkpoint


def test_graphs_of_any_shape_are_refused(tiny_checkpoint: Any, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(UsageError, match="executorch graphs have fixed shapes: add --static"):
        ExportOptions(formats=("onnx", "executorch"))
    assert ExportOptions(formats=("executorch",), static=StaticShape(24, 32)).formats
    target = tmp_path / "any.bundle"
    checkpoint = str(tiny_checkpoint("liif"))
    assert main(["export", checkpoint, "-o", str(target), "--format", "executorch"]) == 2
    assert "--static 256x256" in capsys.readouterr().err
    assert not target.exists()


def test_nobody_gets_it_unasked() -> None:
    assert "executorch" not in ExportOptions(static=StaticShape(24, 32)).formats


@pytest.fixture
def plan(tiny_checkpoint: Any, tmp_path: Path) -> ExportPlan:
    options = ExportOptions(
        formats=("executorch",), precisions=("fp32",), static=StaticShape(24, 32)
    )
    return ExportPlan(load_checkpoint(tiny_checkpoint("liif")), options, tmp_path.joinpath)


def test_without_the_package_the_format_is_skipped_with_the_reason(
    plan: ExportPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "executorch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "executorch", None)
    # An export goes on without a format whose writer raises this, and the manifest says why.
    with pytest.raises(BackendError, match=r"pip install 'scaleport\[executorch\]'"):
        write_executorch.write(plan)


class Broken:
    """A program that computes something else."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def load(self, graph: Any, options: Any) -> Any:
        del graph, options
        return SimpleNamespace(
            run=lambda feeds: {"y": feeds["x"] * self._factor}, close=lambda: None
        )


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (1.001, False), (float("nan"), False)])
def test_a_program_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, fits: bool
) -> None:
    import torch

    from scaleport.models.base import Stage
    from scaleport.tensor import TensorSpec

    x, y = (TensorSpec(name, "float32", ("N", 3)) for name in "xy")
    stage = Stage("render", torch.nn.Identity(), (x,), (y,))
    monkeypatch.setattr(write_executorch, "ExecuTorchBackend", lambda: Broken(factor))
    inputs = (torch.full((1, 3), 0.5),)
    if fits:
        write_executorch._check(stage, inputs, tmp_path / "render.pte", "fp32")
        return
    with pytest.raises(ExportError, match="'render' differs from the network: output 'y'"):
        write_executorch._check(stage, inputs, tmp_path / "render.pte", "fp32")
