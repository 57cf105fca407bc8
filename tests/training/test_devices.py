"""Bfloat16 is used where the device has it, float32 elsewhere, and the run says which."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

import yaml  # noqa: E402
from training_samples import tiny_recipe  # noqa: E402

from scaleport.errors import UsageError  # noqa: E402
from scaleport.training import command, devices  # noqa: E402

CPU = ("cpu", 1, 1, "auto")


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_precision(monkeypatch, has, asked):
    monkeypatch.setattr(devices, "computes_bf16", lambda device: has)
    with devices.make_fabric(*CPU, asked).autocast():
        lower = torch.is_autocast_enabled("cpu")
    assert lower is (asked and has)


def test_this_processor_answers():
    assert isinstance(devices.computes_bf16(torch.device("cpu")), bool)


def test_what_is_not_there():
    with pytest.raises(UsageError, match="cannot train on abacus x 1"):
        devices.make_fabric("abacus", 1, 1, "auto", True)


@pytest.mark.parametrize("has", [True, False])
def test_the_run_says_so(monkeypatch, photos, tmp_path, has):
    for module in (devices, command):
        monkeypatch.setattr(module, "computes_bf16", lambda device: has)
    recipe = tmp_path / "own.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe(bf16=True, steps=1)))
    said: list[str] = []
    options = command.TrainingOptions(photos, tmp_path / "run", accelerator="cpu")
    command.train(str(recipe), options, say=said.append)
    assert ("no bfloat16 arithmetic: training in float32" in "\n".join(said)) is not has
