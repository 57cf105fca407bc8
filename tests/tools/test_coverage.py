"""The coverage table says what was measured, of the networks there are."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from scaleport.errors import ArtifactError
from scaleport.models.compositions import COMPOSITIONS
from scaleport.shipped import shipped_weights
from tools import coverage, coverage_static
from tools.coverage import BACKENDS, COLUMNS, PRECISIONS, Cell, Row
from tools.coverage_static import StaticRow
from tools.coverage_table import table

DOCS = Path(__file__).parents[2] / "docs"
EVERYWHERE = ("onnxruntime", "openvino", "coreml")
AGAIN = "run `python -m tools.coverage`"


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return coverage.read_rows(DOCS / "coverage.json")


@pytest.fixture(scope="module")
def static() -> dict[str, StaticRow]:
    return coverage_static.read_static(DOCS / "coverage_static.json")


def test_every_part_is_covered_as_it_is_now(rows):
    missing = [name for name in coverage.chosen() if name not in rows]
    assert not missing, AGAIN
    stale = [name for name, row in rows.items() if row.config != coverage.config_hash(name)]
    assert not stale, AGAIN
    keys = {f"{b}/{p}/{c}" for b in BACKENDS for p in PRECISIONS for c in COLUMNS}
    for name, row in rows.items():
        assert set(row.cells) == keys, name


def test_every_cell_passes_or_says_why_not(rows):
    for row in rows.values():
        for key, cell in row.cells.items():
            assert cell.status in ("pass", "built", "n/a"), (row.name, key, cell.reason)
            assert cell.cases > 0 if cell.status == "pass" else cell.reason, (row.name, key)


def test_only_formats_that_refuse_a_network_have_no_pass(rows):
    for name, row in rows.items():
        passes = {key.split("/")[0] for key, cell in row.cells.items() if cell.status == "pass"}
        held = {"onnxruntime", "openvino"} if "mambairv2" in name else {*EVERYWHERE}
        assert passes & {*EVERYWHERE} == held, name


def test_the_document_is_the_table(rows, static):
    assert (DOCS / "coverage.md").read_text(encoding="utf-8") == table(rows, static), (
        "run `python -m tools.coverage --render`"
    )


def test_every_network_is_in_the_document(rows):
    text = table(rows, {})
    for name in COMPOSITIONS:
        assert f"`{name}`" in text


def test_a_failure_is_shown_with_its_reason(rows):
    name = "edsr-baseline-liif"
    bad = Cell(status="fail", reason="PSNR 20.0 dB under 80.0 dB (odd, x2)", cases=3, worst=20.0)
    cells = {**rows[name].cells, "openvino/fp32/real": bad}
    text = table({name: Row(name=name, config="", cells=cells)}, {})
    line = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
    letter = line.split("**FAIL** ")[1].split()[0]
    assert f"- {letter}: {bad.reason}" in text


def test_damaged_results_are_refused(tmp_path):
    path = tmp_path / "coverage.json"
    path.write_text('[{"name": 3}]')
    with pytest.raises(ArtifactError, match="damaged"):
        coverage.read_rows(path)


def test_rows_are_kept_in_order(tmp_path, rows):
    path = tmp_path / "coverage.json"
    coverage.write_rows(path, dict(reversed(rows.items())))
    assert coverage.read_rows(path) == rows
    assert list(coverage.read_rows(path)) == [name for name in COMPOSITIONS if name in rows]
    assert not list(tmp_path.glob("*.tmp"))


def test_fixed_shapes_are_covered_as_they_are_now(static):
    again = "run `python -m tools.coverage --static`"
    assert {"scaleport-s", "scaleport-any", "scaleport-photo"} <= set(static), again
    assert not [name for name, row in static.items() if not coverage_static.is_current(row)], again
    keys = {f"{backend}/{precision}" for backend, precision in coverage_static.columns()}
    for name, row in static.items():
        assert set(row.cells) == keys, name


def test_fixed_shapes_pass_or_say_why_not(static):
    for row in static.values():
        for key, cell in row.cells.items():
            assert cell.status in ("pass", "built", "n/a"), (row.name, key, cell.reason)
            assert cell.cases > 0 if cell.status == "pass" else cell.reason, (row.name, key)
    for name in set(shipped_weights()) & set(static):
        passes = {k.split("/")[0] for k, c in static[name].cells.items() if c.status == "pass"}
        assert passes >= {*EVERYWHERE}, name


@pytest.mark.networks
def test_fixed_shapes_are_measured_as_they_are_shown(tmp_path):
    name = "edsr-baseline-x2"
    row = coverage_static.measure_static(name)
    path = tmp_path / "static.json"
    coverage_static.write_static(path, {name: row})
    assert coverage_static.read_static(path) == {name: row}
    height, width = row.shape
    (line,) = (s for s in table({}, {name: row}).splitlines() if f"`{name}` | {height}x" in s)
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert cells[0] == f"{height}x{width}"
    worst = row.cells["onnxruntime/fp32"].worst
    assert worst is not None and worst >= 80
    assert cells[1] == f"{worst:.0f}"
    path.write_text('[{"name": 3}]')
    with pytest.raises(ArtifactError, match="damaged"):
        coverage_static.read_static(path)


@pytest.mark.networks
@pytest.mark.parametrize("name", ["edsr-baseline-x2", "edsr-baseline-metasr", "mambairv2-light-x2"])
def test_measuring_again_gives_the_same_verdicts(name, rows):
    again = coverage.measure(name)
    for key, cell in again.cells.items():
        known = rows[name].cells[key]
        where = msgspec.structs.asdict(cell)
        if not key.startswith("tensorrt"):  # its library may be absent here
            assert (cell.status, cell.cases) == (known.status, known.cases), (key, where)
