"""Engines of the shipped models: one per stage and one for the whole, in a minute on any machine.

They are built here and run nowhere in this suite: running them takes an NVIDIA GPU.
"""

from __future__ import annotations

import os

import pytest

from scaleport.bundle.reader import open_bundle
from scaleport.export.tensorrt import graph_sha256
from scaleport.runtimes.engine_record import PORTABLE, read_record

pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx to build engines")

STAGES = {
    "liif-small": {"encode", "render"},
    "igconv-small": {"prepare", "encode", "render", "render_x2", "render_x3", "render_x4"},
}


@pytest.fixture(scope="module")
def engines(shipped_bundle):
    """Function from a shipped model to its bundle and its engines' records."""

    def get(name):
        bundle = open_bundle(shipped_bundle(name), verify="all")
        graphs = bundle.graphs("tensorrt")
        return bundle, {(g.precision, g.stage): read_record(bundle.file(g.path)) for g in graphs}

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STAGES))
def test_every_stage_and_the_whole_have_an_engine(engines, name):
    bundle, records = engines(name)
    wanted = STAGES[name] | {"whole_size"}
    assert set(records) == {(p, s) for p in ("fp32", "fp16") for s in wanted}
    assert "tensorrt" not in bundle.manifest.skipped
    for (precision, stage), record in records.items():
        assert record.compute_capabilities == (PORTABLE,)
        # Built from the ONNX graph that ships beside it.
        source = bundle.graph("onnx", stage, precision)
        assert record.onnx_sha256 == graph_sha256(bundle.file(source.path))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STAGES))
def test_heavy_stages_compute_in_the_precision_of_their_graph(engines, name):
    _, records = engines(name)
    for (precision, stage), record in records.items():
        half = record.precisions.get("float16", 0)
        assert (half > 0) == (precision == "fp16" and stage != "prepare"), (precision, stage)


@pytest.mark.slow
def test_all_engines_are_built_within_a_minute(engines):
    total = 0.0
    for name in STAGES:
        for (precision, stage), record in engines(name)[1].items():
            print(f"{name} {precision} {stage}: {record.build_seconds:.2f} s")  # noqa: T201
            total += record.build_seconds
    print(f"all engines: {total:.1f} s")  # noqa: T201
    cores = os.cpu_count() or 1
    if total >= 60 and os.getloadavg()[0] > 1.5 * cores:
        pytest.skip(f"{total:.0f} s on a machine that is busy with other work: nothing to learn")
    assert total < 60
