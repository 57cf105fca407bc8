"""What checkpoints are called."""

from pathlib import Path

import pytest

from scaleport.shipped import checkpoint_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("photo.safetensors", "photo"),
        ("runs/faces/model.safetensors", "faces"),
        ("runs/faces/latest.safetensors", "faces"),
        ("runs/v1.5/model.safetensors", "v1.5"),
        ("photo.bundle/model.safetensors", "photo"),
        ("/model.safetensors", "model"),
    ],
)
def test_name(path: str, name: str) -> None:
    assert checkpoint_name(Path(path)) == name


def test_a_run_without_a_folder_is_called_after_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faces").mkdir()
    monkeypatch.chdir(tmp_path / "faces")
    assert checkpoint_name(Path("model.safetensors")) == "faces"
