"""Core ML packages of real stages: equal to the PyTorch modules at sizes of no trace."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

pytest.importorskip("coremltools")

from scaleport.bundle.manifest import SizeRange
from scaleport.errors import ArtifactError, ExportError, UsageError
from scaleport.export import coreml
from scaleport.export.coreml import export_stage
from scaleport.export.coreml_options import CoreMLOptions
from scaleport.grid import Grid, subpixel_centres
from scaleport.mil import read_program
from scaleport.models.base import GRID_PORTS, Stage
from scaleport.models.network import build_network
from scaleport.runtimes.base import GraphFile, SessionOptions
from scaleport.runtimes.coreml import EVALUATOR, CoreMLBackend
from scaleport.tensor import UNNAMED, TensorSpec

UPSAMPLERS = {
    "liif": {"name": "liif", "hidden": [16, 16, 16]},
    "igconv": {"name": "igconv", "latent": 16, "hidden_layers": 1, "scales": [2, 3]},
    "spconv": {"name": "spconv", "scale": 3},
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
STAGES = [
    ("liif", "encode", "fp32"),
    ("liif", "encode", "fp16"),
    ("liif", "render", "fp32"),
    ("liif", "render", "fp16"),
    ("igconv", "prepare", "fp32"),
    ("igconv", "render", "fp32"),
    ("igconv", "render", "fp16"),
    ("spconv", "render_x3", "fp32"),
    ("spconv", "render_x3", "fp16"),
]
# Batch, height, width, scale (of a lattice: the integer S), none of them used in tracing.
SIZES = [
    (1, 1, 1, 2),
    (2, 7, 5, np.pi),
    (1, 23, 4, (2, 3.5)),
    (3, 8, 37, 1.3),
]


def _network(name):
    torch.manual_seed(3)
    return build_network(
        {
            "encoder": {"name": "edsr", "width": 8, "blocks": 1, "residual_scale": 0.1},
            "upsampler": UPSAMPLERS[name],
            "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.9},
        }
    )


def _open(path, device=""):
    graph = GraphFile(path, "", "", (), ())
    return CoreMLBackend().load(graph, SessionOptions(device=device))


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Function to a stage and the session of its package, exported when first asked for."""
    root = tmp_path_factory.mktemp("coreml")
    made = {}

    def get(name, stage_name, precision):
        key = (name, stage_name, precision)
        if key not in made:
            stages = _network(name).deploy(DTYPES[precision]).stages()
            stage = next(s for s in stages if s.name == stage_name)
            path = root / "-".join(key) / f"{stage_name}.mlpackage"
            export_stage(stage, path)
            made[key] = stage, path, _open(path, "evaluator")
        return made[key]

    return get


def _inputs(stage, n, h, w, scale):
    grid = Grid.from_scale(h, w, scale)
    whole = int(np.ceil(np.max(scale))) + 1
    known = {key: torch.from_numpy(value) for key, value in grid.feeds().items()}
    known["subpixel"] = torch.from_numpy(subpixel_centres(whole))
    lengths = {"N": n, "H": h, "W": w, "S": whole}
    torch.manual_seed(n + h + w)

    def make(port):
        if port.name in known:
            return known[port.name]
        return torch.rand([lengths[d] if isinstance(d, str) else d for d in port.shape])

    return [make(port) for port in stage.inputs]


def _both(stage, session, inputs):
    feeds = {p.name: t.numpy() for p, t in zip(stage.inputs, inputs, strict=True)}
    with torch.no_grad():
        want = stage.module(*inputs).numpy()
    return want, session.run(feeds)[stage.outputs[0].name]


def _psnr(want, got):
    return -10 * np.log10(max(np.mean((want.astype(np.float64) - got) ** 2), 1e-30))


@pytest.mark.parametrize(("name", "stage_name", "precision"), STAGES)
def test_package_equals_the_stage_at_untraced_sizes(exported, name, stage_name, precision):
    stage, _, session = exported(name, stage_name, precision)
    for n, h, w, scale in SIZES:
        want, got = _both(stage, session, _inputs(stage, n, h, w, scale))
        assert got.shape == want.shape and got.dtype == np.float32
        if precision == "fp32":
            # Random inputs and weights make pixels beyond 1, where float32 has fewer decimals.
            assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())
        else:
            assert _psnr(want, got) >= 55


@pytest.mark.parametrize(("name", "stage_name", "precision"), STAGES)
def test_ports_keep_their_names_types_and_dynamic_dimensions(exported, name, stage_name, precision):
    stage, path, session = exported(name, stage_name, precision)
    for specs, ports in ((session.inputs, stage.inputs), (session.outputs, stage.outputs)):
        assert [spec.name for spec in specs] == [port.name for port in ports]
        for spec, port in zip(specs, ports, strict=True):
            assert spec.dtype == port.dtype
            assert spec.shape == tuple(UNNAMED if isinstance(d, str) else d for d in port.shape)
    assert session.device == EVALUATOR
    assert sorted(p.name for p in path.iterdir()) == ["Data", "Manifest.json"]


@pytest.mark.parametrize(("name", "stage_name", "precision"), STAGES)
def test_products_have_the_precision_of_the_build(exported, name, stage_name, precision):
    program = read_program(exported(name, stage_name, precision)[1])
    products = [o for o in program.operations if o.kind in ("conv", "linear", "matmul")]
    want = np.dtype(np.float16 if precision == "fp16" else np.float32)
    assert products and {o.outputs[0][1].dtype for o in products} == {want}


@pytest.mark.parametrize("height", [600, 2500])
def test_large_indices_are_exact_in_a_float16_build(exported, height):
    stage, _, session = exported("liif", "render", "fp16")
    exact = exported("liif", "render", "fp32")[0]
    inputs = _inputs(stage, 1, height, 8, 1.5)
    feeds = {p.name: t.numpy() for p, t in zip(stage.inputs, inputs, strict=True)}
    with torch.no_grad():
        want = exact.module(*inputs).numpy()
    got = session.run(feeds)["upscaled"]
    tenth = got.shape[2] // 10
    # Rows of noise: an index that is off by one gives another image, not a small error.
    error = np.abs(got - want)
    assert error[:, :, -tenth:].max() <= 2 * error[:, :, :tenth].max()
    assert _psnr(want, got) >= 55


def test_grid_arithmetic_of_a_float16_build_is_int32_and_float32(exported):
    program = read_program(exported("liif", "render", "fp16")[1])
    types = dict(program.inputs) | {k: t for o in program.operations for k, t in o.outputs}
    makers = {name: o for o in program.operations for name, _ in o.outputs}
    gathers = [o for o in program.operations if o.kind == "gather" and types[o.name].shape != ()]
    assert len(gathers) == 6
    pending = [o.inputs["indices"].name for o in gathers]
    seen = set()
    while pending:
        name = pending.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        assert types[name].dtype in (np.dtype(np.int32), np.dtype(np.bool_)), name
        if makers[name].kind != "shape":
            pending += makers[name].reads()
    # What meets the offsets: the difference of two indices, never an index.
    casts = [o for o in program.operations if o.kind == "cast" and types[o.name].dtype.kind == "f"]
    sources = [makers.get(o.inputs["x"].name) for o in casts]
    integers = [m for m in sources if m and types[m.name].dtype == np.dtype(np.int32)]
    assert len(integers) == 4 and {m.kind for m in integers} == {"sub"}
    results = {o.name: o for o in program.operations}
    for cast in casts:
        if makers.get(cast.inputs["x"].name) in integers:
            assert types[results[cast.name].name].dtype == np.dtype(np.float32)


class Pitfalls(nn.Module):
    """What coremltools 9 converts into something else without saying so."""

    def forward(self, x, index):
        half = F.pad(x.half() * 0.3 + 1, (1, 1, 1, 1))
        limit = torch.full_like(index, x.shape[2] - 1)
        clamped = torch.clamp(torch.minimum(index, limit + 100_000), min=0)
        curved = F.gelu(x * 1000, approximate="tanh")
        return half.float(), 1 / x, curved, clamped, torch.clamp(index, min=3, max=4099)


PITFALLS = Stage(
    "render",
    Pitfalls(),
    (
        TensorSpec("feature", "float32", ("N", 2, "H", "W")),
        TensorSpec("row_index", "int32", ("Ho",)),
    ),
    (
        TensorSpec("padded", "float32", ("N", 2, "H", "W")),
        TensorSpec("inverse", "float32", ("N", 2, "H", "W")),
        TensorSpec("curved", "float32", ("N", 2, "H", "W")),
        TensorSpec("clamped", "int32", ("Ho",)),
        TensorSpec("limited", "int32", ("Ho",)),
    ),
)


@pytest.fixture(scope="session")
def pitfalls(tmp_path_factory):
    path = tmp_path_factory.mktemp("pitfalls") / "pitfalls.mlpackage"
    export_stage(PITFALLS, path)
    return path


def test_frontend_corrections(pitfalls):
    x = torch.rand(1, 2, 6, 5) * 1e-3 + 1e-4
    index = torch.tensor([-7, 0, 2, 4097, 4099, 100_003, 100_007, 1 << 24], dtype=torch.int32)
    got = _open(pitfalls, "evaluator").run({"feature": x.numpy(), "row_index": index.numpy()})
    for port, want in zip(PITFALLS.outputs, PITFALLS.module(x, index), strict=True):
        if port.dtype == "int32":
            np.testing.assert_array_equal(got[port.name], want.numpy())
        else:
            # PyTorch multiplies halves by the number 0.3, Core ML by 0.3 rounded to a half.
            # GELU by the other formula would be up to 5e-4 off.
            tolerance = {"padded": 2e-3, "curved": 1e-5}.get(port.name, 1e-6)
            np.testing.assert_allclose(got[port.name], want.numpy(), rtol=tolerance)
    program = read_program(pitfalls)
    pad = next(o for o in program.operations if o.kind == "pad")
    assert pad.outputs[0][1].dtype == np.float16


def test_frontend_is_put_back(pitfalls):
    from coremltools.converters.mil.frontend.torch import ops

    del pitfalls
    assert ops.promote_input_dtypes.__module__.startswith("coremltools")


def test_without_the_corrections_the_export_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(coreml, "corrected_frontend", contextlib.nullcontext)
    target = tmp_path / "p.mlpackage"
    with pytest.raises(ExportError):
        export_stage(PITFALLS, target)
    assert list(tmp_path.iterdir()) == []


class FloatIndex(nn.Module):
    def forward(self, base, row_index):
        return base.index_select(1, torch.floor(row_index.float() + 0.5).int())


def test_index_through_a_float_is_refused(tmp_path):
    base = TensorSpec("base", "float32", ("N", "H", "W", 4))
    out = TensorSpec("lines", "float32", ("N", "Ho", "W", 4))
    stage = Stage("render", FloatIndex(), (base, GRID_PORTS[0]), (out,))
    with pytest.raises(ExportError, match="through a float"):
        export_stage(stage, tmp_path / "f.mlpackage")


class Baked(nn.Module):
    """A graph that holds the size it was traced with."""

    def forward(self, base):
        return base * torch.arange(base.shape[0] * 0 + 13, dtype=torch.float32)[:, None, None]


def test_baked_size_is_refused(tmp_path):
    base = TensorSpec("base", "float32", ("N", "H", "W", 4))
    stage = Stage("render", Baked(), (base,), (base,))
    with pytest.raises(ExportError):
        export_stage(stage, tmp_path / "b.mlpackage")
    assert list(tmp_path.iterdir()) == []


def test_target_is_replaced_whole_or_left_alone(exported, tmp_path, monkeypatch):
    stage = exported("spconv", "render_x3", "fp32")[0]
    target = tmp_path / "deep" / "render.mlpackage"
    target.mkdir(parents=True)
    (target / "old").write_text("old")

    def fail(*arguments):
        raise ExportError("checked and found wrong")

    with monkeypatch.context() as patch:
        patch.setattr(coreml, "_check_numbers", fail)
        with pytest.raises(ExportError, match="found wrong"):
            export_stage(stage, target)
    assert [p.name for p in target.iterdir()] == ["old"]
    assert [p.name for p in target.parent.iterdir()] == ["render.mlpackage"]

    export_stage(stage, target, CoreMLOptions(max_batch=1))
    assert not (target / "old").exists()
    assert [p.name for p in target.parent.iterdir()] == ["render.mlpackage"]

    # A program with its batch fixed to 1 is run image by image.
    session = _open(target, "evaluator")
    assert read_program(target).inputs["feature"].shape[0] == 1
    assert session.inputs[0].shape == ("N", 8, UNNAMED, UNNAMED)
    want, got = _both(stage, session, _inputs(stage, 3, 6, 5, 3))
    assert got.shape == want.shape and np.abs(got - want).max() <= 1e-5


def test_session_refuses_wrong_options(exported):
    graph = GraphFile(exported("spconv", "render_x3", "fp32")[1], "render_x3", "fp32", (), ())
    with pytest.raises(UsageError, match="no device 'gpu'"):
        CoreMLBackend().load(graph, SessionOptions(device="gpu"))
    with pytest.raises(UsageError, match="precision"):
        CoreMLBackend().load(graph, SessionOptions(inference_precision="bf16"))
    with pytest.raises(ArtifactError):
        CoreMLBackend().load(replace(graph, path=graph.path.parent / "no"), SessionOptions())


def test_availability_is_honest():
    found = CoreMLBackend().availability()
    assert found.usable and found.version
    assert found.device == EVALUATOR or sys.platform == "darwin"


def test_missing_coremltools_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = CoreMLBackend().availability()
    assert not found.usable and found.extra == "coreml"


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": SizeRange(min=9, opt=8, max=10)},
        {"max_scale": 0.5},
        {"max_batch": 0},
        {"deployment_target": "iOS9"},
    ],
)
def test_wrong_options(wrong):
    with pytest.raises(UsageError):
        CoreMLOptions(**wrong)


def test_importing_the_exporter_imports_no_coremltools():
    script = "import sys, scaleport.export.coreml; assert 'coremltools' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_export_is_silent(exported, tmp_path, capfd):
    export_stage(exported("spconv", "render_x3", "fp32")[0], tmp_path / "r.mlpackage")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (SizeRange(min=24, opt=24, max=24), SizeRange(min=16, opt=16, max=16)),
        (SizeRange(min=24, opt=24, max=24), SizeRange(min=1, opt=256, max=1024)),
        (SizeRange(min=32, opt=64, max=96), SizeRange(min=1, opt=4, max=5)),
    ],
)
def test_fixed_and_narrow_sizes(exported, tmp_path, height, width):
    """The check of the numbers keeps to sizes that the package takes."""
    stage = exported("spconv", "render_x3", "fp32")[0]
    target = tmp_path / "render.mlpackage"
    export_stage(stage, target, CoreMLOptions(height=height, width=width))
    session = _open(target, "evaluator")
    rows, columns = height.max, width.max
    want, got = _both(stage, session, _inputs(stage, 1, rows, columns, 3))
    assert got.shape == want.shape and np.abs(got - want).max() <= 1e-5
    fixed = [axis.max if axis.min == axis.max else UNNAMED for axis in (height, width)]
    assert list(session.inputs[0].shape[2:]) == fixed
