"""The grid as one value: what decoders are given of it, and how it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS
from scaleport.models.base import GRID_PORTS, TrainsOnPoints
from scaleport.models.positions import GridTensors, Positions, blocks
from scaleport.models.upsamplers.query import QueryUpsampler

GRID = Grid.from_size(7, 5, 19, 11)


def test_the_value_is_the_ports_in_their_order():
    at = GridTensors.of(GRID)
    feeds = GRID.feeds()
    assert [port.name for port in GRID_PORTS] == list(feeds)
    for port, tensor in zip(GRID_PORTS, at, strict=True):
        assert str(tensor.dtype) == f"torch.{port.dtype}"
        np.testing.assert_array_equal(tensor.numpy(), feeds[port.name])
        assert getattr(at, port.name) is tensor


def test_queries_are_the_pixels_row_by_row():
    at = GridTensors.of(GRID)
    block = at.queries(2, slice(3, 6), slice(4, 11))
    for image in range(2):
        found = iter(range(21))
        for y in range(3, 6):
            for x in range(4, 11):
                q = next(found)
                assert block.row_index[image, q] == at.row_index[y]
                assert block.row_offset[image, q] == at.row_offset[y]
                assert block.col_index[image, q] == at.col_index[x]
                assert block.col_offset[image, q] == at.col_offset[x]
    assert block.row_index.shape == (2, 21)
    torch.testing.assert_close(block.scale, at.scale[None].expand(2, 2))


@pytest.mark.parametrize("most", [1, 4, 11, 12, 22, 40, 1000])
def test_blocks_keep_the_order_and_the_bound(most: int):
    rows, cols = 19, 11
    numbers = np.arange(rows * cols).reshape(rows, cols)
    parts = [numbers[block].ravel() for block in blocks(rows, cols, most)]
    assert max(map(len, parts)) <= most
    np.testing.assert_array_equal(np.concatenate(parts), numbers.ravel())


class Reader(nn.Module):
    """Reads all of a grid at once."""

    def forward(self, base: Tensor, at: GridTensors) -> Tensor:
        lines = base.index_select(0, at.row_index) + at.row_offset[:, None]
        return lines.index_select(1, at.col_index) * at.col_offset * at.scale[0]


def test_export_takes_it_as_one_value():
    dims = {name: torch.export.Dim(name) for name in ("Ho", "Wo")}
    shapes: Any = ({}, [{0: dims["Ho"]}] * 2 + [{0: dims["Wo"]}] * 2 + [{}])
    base, at = torch.rand(7, 5), Grid.from_size(7, 5, 8, 9)
    arguments = (base, GridTensors.of(at.region(1, 1, 6, 8)))
    program = torch.export.export(Reader(), arguments, dynamic_shapes=shapes)
    other = GridTensors.of(Grid.from_size(7, 5, 14, 10).region(1, 1, 12, 9))
    torch.testing.assert_close(program.module()(base, other), Reader()(base, other))


SMALL: dict[str, dict[str, Any]] = {
    "liif": {"hidden": [8]},
    "ipe-liif": {"hidden": [8], "bands": 2},
    "metasr": {"hidden": 8},
    "ipe-metasr": {"hidden": 8, "bands": 2},
    "lte": {"width": 8, "hidden": [8]},
    "msit": {"width": 8, "heads": 2, "branches": 2, "query_branches": 2, "hidden": [8]},
}


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_pixels_do_not_depend_on_the_chunks(name: str, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    upsampler = UPSAMPLERS.create(name, SMALL[name], in_channels=4).double().eval()
    assert isinstance(upsampler, QueryUpsampler)
    image = torch.rand(2, 3, 7, 5).double()
    features = {"feature": torch.randn(2, 4, 7, 5).double(), "skip": image}
    monkeypatch.setattr(type(upsampler), "queries_per_chunk", 1 << 20)
    whole = upsampler.render(features, GRID, {})
    assert whole.std() > 1e-3
    for most in (4, 25):
        monkeypatch.setattr(type(upsampler), "queries_per_chunk", most)
        part = upsampler.render(features, GRID, {})
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_upsamplers_that_read_only_features_train_on_points(name: str):
    """Those that read more than the encoder's features at a query cannot."""
    others = {"hiif", "hiif-light", "lte", "msit", "kriging", "thera"}
    kind = UPSAMPLERS.get(name)
    assert issubclass(kind, TrainsOnPoints) == (kind.family == "query" and name not in others)


def test_a_stage_without_the_scale_reads_four_tensors():
    with pytest.raises(TypeError):
        GridTensors(*list(GridTensors.of(GRID))[:4])  # type: ignore[call-arg]
    assert len(list(Positions(*list(GridTensors.of(GRID))[:4]))) == 4
