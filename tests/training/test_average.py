from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.errors import UsageError  # noqa: E402
from scaleport.models import build_network, load_checkpoint, save_checkpoint  # noqa: E402
from scaleport.training.average import average_checkpoints  # noqa: E402


def test_weights_are_the_mean(tmp_path):
    paths = []
    for seed in range(3):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"{seed}.safetensors")
        save_checkpoint(build_network(tiny_recipe()["model"]), paths[-1], {})
    average_checkpoints(paths, tmp_path / "mean.safetensors")
    states = [load_checkpoint(path).state_dict() for path in paths]
    for name, value in load_checkpoint(tmp_path / "mean.safetensors").state_dict().items():
        expected = sum(state[name] for state in states) / 3
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7, msg=name)


def test_networks_of_one_kind_only(tmp_path):
    for kind in ("igconv", "liif"):
        save_checkpoint(build_network(tiny_recipe(kind)["model"]), tmp_path / kind, {})
    with pytest.raises(UsageError, match="liif is another network"):
        average_checkpoints([tmp_path / "igconv", tmp_path / "liif"], tmp_path / "out")
    with pytest.raises(UsageError, match="at least two"):
        average_checkpoints([tmp_path / "igconv"], tmp_path / "out")
