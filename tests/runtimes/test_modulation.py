"""Query models whose features depend on the output size: what is fed, and what is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scaleport.errors import ArtifactError
from scaleport.grid import Grid
from scaleport.runtimes.base import Availability, SessionOptions, Work
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.view import TilePolicy, View

INPUTS = {
    "prepare": ["cell"],
    "encode": ["image", "modulation"],
    "render": ["feature", "row_index", "row_offset", "col_index", "col_offset"],
}


class Recorded(Stages):
    """Features are the image plus the cell's height; pixels are features looked up."""

    def __init__(self, **inputs: list[str]) -> None:
        graphs = {
            stage: SimpleNamespace(inputs=tuple(SimpleNamespace(name=n) for n in names), outputs=())
            for stage, names in (INPUTS | inputs).items()
        }
        size = SimpleNamespace(min=1, opt=8, max=64)
        manifest = SimpleNamespace(
            family="query",
            tiling="exact",
            receptive_field=1,
            render_radius=None,
            tile_step=1,
            fixed_size=None,
            height=size,
            width=size,
            scale=SimpleNamespace(min=1.0, max=8.0, native=()),
        )
        source: Any = SimpleNamespace(
            manifest=manifest, graphs=lambda *_: graphs, file=lambda *_: None
        )
        backend: Any = SimpleNamespace(
            graph_format="onnx",
            name="none",
            load=lambda *_: SimpleNamespace(),
            work=lambda _: Work(),
        )
        super().__init__(source, backend, Availability(True), "fp32", SessionOptions())
        self.ran: list[tuple[str, tuple[str, ...]]] = []

    def call(self, stage: str, feeds: Any, keep: Any = ()) -> Any:
        self.ran.append((stage, tuple(feeds)))
        assert sorted(feeds) == sorted(t.name for t in self.declared[stage].inputs)
        if stage == "prepare":
            return {"modulation": feeds["cell"][:1]}
        if stage == "encode":
            return {"feature": feeds["image"] + feeds["modulation"]}
        height, width = feeds["feature"].shape[2:]
        row = np.clip(feeds["row_index"], 0, height - 1)
        col = np.clip(feeds["col_index"], 0, width - 1)
        return {"upscaled": feeds["feature"][:, :, row][:, :, :, col]}

    def times(self, stage: str) -> int:
        return sum(name == stage for name, _ in self.ran)


def test_features_are_kept_per_output_size() -> None:
    stages = Recorded()
    view = View(stages, np.zeros((1, 3, 6, 5), np.float32), TilePolicy(tile=0))
    for scale, height in ((2, 12), (3, 18), (2, 12)):
        assert view.render(scale).max() == np.float32(2) / np.float32(height)
    assert view.render(3, region=(1, 2, 5, 6)).shape == (1, 3, 4, 4)
    assert (stages.times("prepare"), stages.times("encode"), stages.times("render")) == (2, 2, 4)


def test_every_tile_sees_the_size_of_the_whole_output() -> None:
    stages = Recorded()
    image = np.random.default_rng(0).random((1, 3, 30, 20), dtype=np.float32)
    whole = View(stages, image, TilePolicy(tile=0)).render(2.5)
    tiled = View(stages, image, TilePolicy(tile=7)).render(2.5)
    np.testing.assert_array_equal(tiled, whole)
    assert stages.times("prepare") == 1
    assert stages.times("encode") > 5


def test_cell_is_two_over_the_output_size() -> None:
    grid = Grid.from_size(10, 20, 31, 50).region(3, 4, 9, 10)
    assert grid.cell.dtype == np.float32
    assert grid.cell.tolist() == [np.float32(2 / 31), np.float32(2 / 50)]


def test_an_input_that_nothing_makes_is_an_error() -> None:
    stages = Recorded(prepare=["subpixel"])
    with pytest.raises(ArtifactError, match="'subpixel'"):
        stages.modulation(Grid.from_scale(4, 4, 2))
