"""Networks that only spandrel knows. Without it, that they are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forms import check_forms, check_onnx
from torch import Tensor, nn

from scaleport.errors import ArtifactError, UsageError
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS, build_network, load_checkpoint, save_checkpoint
from scaleport.models.encoders.foreign import rewrites_itself
from scaleport.models.importers import import_file

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 12, "blocks": 1},
    "upsampler": {"name": "shuffle", "scale": 2},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
}


def compact(scale: int = 2) -> nn.Sequential:
    """The body of a "Compact" network: its keys are ``body.0.weight`` and so on."""
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4)]
    layers += [nn.Conv2d(4, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 3 * scale**2, 3, padding=1)]
    return nn.Sequential(*layers)


def saved(body: nn.Sequential, path: Path) -> Path:
    torch.save({"params": {f"body.{key}": value for key, value in body.state_dict().items()}}, path)
    return path


def test_shuffle_in_both_forms() -> None:
    check_forms(CONFIG, scales=(2, 1.3))
    with pytest.raises(UsageError, match="does not fit 12 channels"):
        UPSAMPLERS.create("shuffle", {"scale": 3}, in_channels=12)


def test_without_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ArtifactError, match=r"pip install 'scaleport\[spandrel\]'"):
        import_file(saved(compact(), tmp_path / "a.pth"), foreign=True)
    config = {**CONFIG, "encoder": {"name": "spandrel", "shapes": {"a": [1]}, "scale": 2}}
    with pytest.raises(UsageError, match="needs the package spandrel"):
        build_network(config)


@torch.no_grad()
def test_compact(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    torch.manual_seed(0)
    body = compact()
    found = import_file(saved(body, tmp_path / "a.pth"), foreign=True)
    assert "Compact" in found.title and found.title.endswith("-x2")
    assert found.network.parameter_count() == sum(p.numel() for p in body.parameters())
    image, grid = torch.rand(2, 3, 7, 5), Grid.from_scale(7, 5, 2)
    nearest = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    want = nn.functional.pixel_shuffle(body(image), 2) + nearest
    torch.testing.assert_close(found.network(image, grid), want, rtol=0, atol=1e-6)

    save_checkpoint(found.network, tmp_path / "a.safetensors", found.info())
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(again(image, grid), found.network(image, grid))

    check_forms(found.network.config, scales=(2, 1.3))
    check_onnx(found.network.config, cases=(((7, 5), 2.0),))


def test_networks_that_change_their_weights_are_found() -> None:
    class Merging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.conv.weight.data = self.conv.weight.data * 1
            out: Tensor = self.conv(x)
            return out

    assert rewrites_itself(Merging(), 4)
    assert not rewrites_itself(compact(), 4)


def test_what_spandrel_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match="spandrel cannot build this network"):
        import_file(tmp_path / "a.pth", foreign=True)
    body = compact()
    with torch.no_grad():
        body[0].weight.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="NaN"):
        import_file(saved(body, tmp_path / "a.pth"), foreign=True)
