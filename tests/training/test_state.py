import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.errors import UsageError  # noqa: E402
from scaleport.grid import Grid  # noqa: E402
from scaleport.models import build_network, save_checkpoint  # noqa: E402
from scaleport.models.checkpoint import read_metadata  # noqa: E402
from scaleport.training.cache import build_cache  # noqa: E402
from scaleport.training.log import Row, read_log  # noqa: E402
from scaleport.training.loop import Trainer  # noqa: E402
from scaleport.training.plot import plot_log  # noqa: E402
from scaleport.training.recipe import Recipe  # noqa: E402
from scaleport.training.state import begin_with  # noqa: E402

ENCODER = {"name": "edsr", "width": 8, "blocks": 1}


def saved(path, upsampler, encoder=None):
    network = build_network({"encoder": encoder or ENCODER, "upsampler": upsampler})
    save_checkpoint(network, path)
    return network.eval()


def test_second_stage_keeps_the_encoder(photos, tmp_path):
    """C2D-ISR: the continuous decoder goes, a sub-pixel convolution comes."""
    light = {"name": "hiif-light", "width": 16, "levels": 3, "heads": 2}
    first = saved(tmp_path / "first.safetensors", light)
    recipe = tiny_recipe(scales={"set": [2]}, steps=1)
    recipe["model"]["upsampler"] = {"name": "spconv", "scale": 2}
    cache = build_cache(photos, tmp_path)
    made = msgspec.convert(recipe, Recipe)
    run = Trainer(made, cache, tmp_path / "run", init=tmp_path / "first.safetensors")
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(run.network.encoder.state_dict()[name], value)
    assert run.start.fresh and all(name.startswith("upsampler.") for name in run.start.fresh)
    assert all(name.startswith("upsampler.") for name in run.start.unused)
    (tmp_path / "run").mkdir()
    run.save_state()
    again = Trainer(made, cache, tmp_path / "run")
    again.load_state()
    assert again.start == run.start
    model = again.run().model
    assert read_metadata(model)["info"]["init"] == run.start.sha256


def test_refined_msit_begins_at_the_function_of_the_plain_one(tmp_path):
    options = {"width": 16, "heads": 2, "branches": 4, "query_branches": 2, "hidden": [16]}
    plain = {"name": "msit", **options}
    first = saved(tmp_path / "first.safetensors", plain)
    second = build_network({"encoder": ENCODER, "upsampler": {**plain, "rim": True}}).eval()
    start = begin_with(second, tmp_path / "first.safetensors")
    assert start.fresh and not start.unused
    image, grid = torch.rand(1, 3, 7, 8), Grid.from_scale(7, 8, 2.5)
    with torch.no_grad():
        torch.testing.assert_close(second(image, grid), first(image, grid), rtol=0, atol=1e-6)


def test_other_encoder_is_refused(tmp_path):
    saved(tmp_path / "first.safetensors", {"name": "spconv", "scale": 2})
    other = build_network(
        {"encoder": {**ENCODER, "width": 4}, "upsampler": {"name": "spconv", "scale": 2}}
    )
    # Biases of three channels at the end fit any width, but are no encoder.
    with pytest.raises(UsageError, match="no weights for the encoder"):
        begin_with(other, tmp_path / "first.safetensors")


def test_log_is_read_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "log.csv"
    path.write_text(
        "step,lr,loss,seconds,val_psnr_y\n100,1e-3,0.5,1.0,\n200,1e-3,0.25,1.0,30.5\n300"
    )
    rows = read_log(path)
    assert rows == [Row(100, 1e-3, 0.5, 1.0), Row(200, 1e-3, 0.25, 1.0, 30.5)]
    plot_log(rows, tmp_path / "run.svg", "run")
    assert "validation PSNR" in (tmp_path / "run.svg").read_text() or (
        (tmp_path / "run.svg").stat().st_size > 5000
    )
    with pytest.raises(UsageError, match="empty"):
        plot_log([], tmp_path / "run.svg")
