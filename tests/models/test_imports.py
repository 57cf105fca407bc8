"""The table of docs/importing.md: each published file, with random weights, is what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from imports import FILES, File, bring, row

from scaleport.grid import Grid

PAGE = Path(__file__).parents[2] / "docs/importing.md"


def lines() -> list[str]:
    """The rows of the table, without its head."""
    found = PAGE.read_text("utf-8").splitlines()
    start = next(i for i, line in enumerate(found) if line.startswith("| project |")) + 2
    stop = next(i for i in range(start, len(found)) if not found[i].startswith("|"))
    return found[start:stop]


def test_every_file_has_its_row() -> None:
    said = [tuple(line.strip("| ").split(" | ")[:3]) for line in lines()]
    assert said == [
        (file.project, file.network, f"`{file.place}`" if file.place else "the file itself")
        for file in FILES
    ]


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def named(file: File) -> str:
    return f"{file.project.split()[0]} {file.network}"


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=named)
@torch.no_grad()
def test_a_published_file(file: File, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Its row, and its forward pass against the statement of it, in double precision."""
    module, run, scale, found = bring(file, tmp_path)
    assert row(file, module, found) in lines()
    assert found.project.split()[0] in (file.project.split()[0], "BasicSR")
    request.getfixturevalue("double")
    network = found.network.double()
    module.double()
    torch.manual_seed(1)
    image = torch.rand(1, 3, *file.size)
    want = run(image)
    got = network(image, Grid.from_scale(*file.size, scale))
    assert got.shape == want.shape and want.std() > 1e-3
    assert (got - want).abs().max() <= 1e-5 * max(1.0, float(want.abs().max()))
