"""What checkpoints are called."""

from pathlib import Path

import pytest

from scaleport.shipped import LICENSE, checkpoint_name, license_of, shipped_weights


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


def test_shipped_checkpoints_have_a_licence_and_others_what_their_maker_says(tmp_path) -> None:
    shipped = shipped_weights()
    assert shipped
    for path in shipped.values():
        assert license_of(path, {}) == LICENSE
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        assert f"| Licence | {LICENSE} |" in card
    copy = tmp_path / "scaleport-s.safetensors"
    copy.touch()
    assert license_of(copy, {}) == ""
    assert license_of(copy, {"license": " CC-BY-4.0 "}) == "CC-BY-4.0"
    assert license_of(copy, {"license": None}) == license_of(copy, "text") == ""
