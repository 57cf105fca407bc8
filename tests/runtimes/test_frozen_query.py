"""Graphs of one integer scale in a bundle of a query model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scaleport.errors import UsageError  # noqa: E402
from scaleport.export.exporter import export_bundle  # noqa: E402
from scaleport.export.plan import ExportOptions  # noqa: E402
from scaleport.grid import Grid  # noqa: E402
from scaleport.models import build_network, load_checkpoint, save_checkpoint  # noqa: E402
from scaleport.runtimes.upscaler import load  # noqa: E402
from scaleport.runtimes.view import TilePolicy  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    config: dict[str, Any] = {
        "encoder": {"name": "edsr", "width": 6, "blocks": 1},
        "upsampler": {"name": "metasr", "hidden": 8},
        "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.9},
    }
    path = tmp_path_factory.mktemp("metasr") / "metasr.safetensors"
    save_checkpoint(build_network(config).eval(), path)
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    options = ExportOptions(formats=("onnx",), precisions=("fp32",), freeze_scales=(3, 2))
    manifest = export_bundle(checkpoint, checkpoint.with_name("metasr.bundle"), options)
    stages = {graph.stage for graph in manifest.graphs["onnx"]}
    assert stages == {"encode", "render", "render_x2", "render_x3", "whole", "whole_size"}
    # Head, two in the block, tail, filter, and one for pixels whose corner lies in another.
    assert manifest.receptive_field == 6
    return checkpoint.with_name("metasr.bundle")


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
@pytest.mark.parametrize(
    ("scale", "stage"), [(2, "render_x2"), (3, "render_x3"), (4, "render"), ((2, 3), "render")]
)
def test_tiles_and_regions_are_parts_of_the_whole(
    checkpoint: Path, bundle: Path, backend: str, scale: Any, stage: str
) -> None:
    image = np.random.default_rng(0).random((1, 3, 37, 29), dtype=np.float32)
    grid = Grid.from_scale(37, 29, scale)
    with torch.no_grad():
        want = load_checkpoint(checkpoint)(torch.from_numpy(image), grid).numpy()
    for tile in (0, 11):
        upscaler = load(bundle, backend, policy=TilePolicy(tile=tile, render_pixels=900))
        view = upscaler.open(image)
        used: list[str] = []
        session = view._stages.session

        def spy(name: str, used: list[str] = used, session: Any = session) -> Any:
            used.append(name)
            return session(name)

        view._stages.session = spy  # type: ignore[method-assign]
        whole = view.render(scale)
        assert set(used) == {"encode", stage}
        np.testing.assert_allclose(whole, want, rtol=0, atol=1e-5)
        part = view.render(scale, region=(5, 9, 52, 30))
        np.testing.assert_allclose(part, whole[:, :, 5:52, 9:30], rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [1.3, 1.5, 2.7])
def test_tiles_of_other_scales_are_exact(bundle: Path, scale: float) -> None:
    image = np.random.default_rng(1).random((1, 3, 37, 29), dtype=np.float32)
    whole, tiled = (
        load(bundle, "onnxruntime", policy=TilePolicy(tile=tile)).open(image).render(scale)
        for tile in (0, 9)
    )
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=2e-6)


def test_only_scales_of_the_model_can_be_frozen(checkpoint: Path, tmp_path: Path) -> None:
    options = ExportOptions(formats=("onnx",), freeze_scales=(9,))
    with pytest.raises(UsageError, match="cannot freeze scale 9; this model renders x1 to x8"):
        export_bundle(checkpoint, tmp_path / "refused.bundle", options)
