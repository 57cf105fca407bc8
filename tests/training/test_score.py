import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import scaleport  # noqa: E402
from scaleport.errors import ImageError, UsageError  # noqa: E402
from scaleport.models import build_network, load_checkpoint, save_checkpoint  # noqa: E402
from scaleport.training.score import main, make_pair, score, upscale  # noqa: E402

WEIGHTS = Path(scaleport.__file__).parent / "weights"
BICUBIC = {2.0: 33.68, 3.0: 30.40, 4.0: 28.43}
GAINS = {2.0: 1.5, 2.7: 0.0, 3.0: 1.2, 4.0: 1.0, 6.0: 0.0}


class Nearest(torch.nn.Module):
    """Repeats pixels; stands in for a network."""

    def forward(self, image, grid):
        return torch.nn.functional.interpolate(image, grid.output_size)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = {
        "encoder": {"name": "edsr", "width": 4, "blocks": 1},
        "upsampler": {"name": "igconv", "scales": [2, 3], "latent": 4},
    }
    path = tmp_path_factory.mktemp("score") / "tiny.safetensors"
    save_checkpoint(build_network(config), path)
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "Own").mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 25, 3), dtype=np.uint8)).save(folder / "Own/a.png")
    Image.fromarray(rng.integers(0, 256, (24, 36), dtype=np.uint8)).save(folder / "Own/b.png")
    return folder


@pytest.mark.parametrize(
    ("scale", "low", "high"),
    [(2, (15, 12), (30, 24)), (2.7, (11, 9), (30, 24)), (4, (7, 6), (28, 24)), (1, (30, 25), None)],
)
def test_pairs_fit_their_scale(scale, low, high):
    image = np.random.default_rng(0).integers(0, 256, (30, 25, 3), dtype=np.uint8)
    lr, hr = make_pair(image, scale)
    assert lr.dtype == np.uint8 and lr.shape == (*low, 3)
    assert np.array_equal(hr, image[: (high or low)[0], : (high or low)[1]])


def test_too_small_for_the_scale():
    with pytest.raises(ImageError, match="x4"):
        make_pair(np.zeros((3, 9), np.uint8), 4)


def test_upscale_keeps_values_and_channels():
    lr = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    out = upscale(Nearest(), lr, 6, 8)
    np.testing.assert_allclose(out, lr.repeat(2, 0).repeat(2, 1), atol=1e-3)
    rgb = np.stack([lr, lr + 1, lr + 2], axis=-1)
    np.testing.assert_allclose(upscale(Nearest(), rgb, 3, 4), rgb, atol=1e-3)


def test_command_line_prints_supported_scales(checkpoint, bench, capsys):
    assert main([str(checkpoint), "--data", str(bench), "--sets", "Own", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tiny.safetensors"]
    assert [row["scale"] for row in rows] == [2.0, 2.7, 3.0]
    network = load_checkpoint(checkpoint)
    assert rows[0]["model"] == score(network, bench / "Own", (2.0,))[0].model
    assert main([str(checkpoint), "--data", str(bench), "--sets", "Own", "--scales", "2"]) == 0
    assert f"{rows[0]['bicubic']:.2f}" in capsys.readouterr().out


def test_command_line_errors_are_one_line(checkpoint, bench, capsys):
    assert main([str(checkpoint), "--data", str(bench), "--sets", "None"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no images in") and error.count("\n") == 1


def test_unreadable_image(checkpoint, tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(ImageError, match=r"a\.png"):
        score(load_checkpoint(checkpoint), tmp_path)
    with pytest.raises(UsageError, match="no images"):
        score(load_checkpoint(checkpoint), tmp_path / "none")


@pytest.mark.parametrize("name", ["igconv-small", "liif-small"])
def test_shipped_weights_beat_bicubic(name):
    """Set5, all five images, at every scale that the network declares."""
    folder = os.environ.get("SCALEPORT_DATA")
    if not folder:
        pytest.skip("SCALEPORT_DATA does not name the image folder")
    network = load_checkpoint(WEIGHTS / f"{name}.safetensors")
    scores = score(network, Path(folder) / "bench/Set5")
    expected = [s for s in GAINS if s <= (4 if name.startswith("igconv") else 8)]
    assert [row.scale for row in scores] == expected
    for row in scores:
        if row.scale in BICUBIC:
            assert row.bicubic == pytest.approx(BICUBIC[row.scale], abs=0.02)
        assert row.model >= row.bicubic + GAINS[row.scale], row


def test_shipped_weights_are_small_and_documented():
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert {f.stem for f in files} >= {"igconv-small", "liif-small"}
    assert sum(f.stat().st_size for f in files) < 8_000_000
    for file in files:
        card = file.with_suffix(".md").read_text(encoding="utf-8")
        assert "Apache-2.0" in card
        assert str(load_checkpoint(file).parameter_count()) in card.replace(" ", "")
