"""The cache of exports: what an entry depends on, and that it is right or not used."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest

from scaleport.bundle.manifest import Manifest
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.errors import OutputError
from scaleport.export import exporter
from scaleport.export.exporter import cache_key, export, from_cache, tool_versions
from scaleport.export.plan import ExportOptions
from scaleport.export_cache import cache_folder, exported_bundles, fetch, keep
from scaleport.models.checkpoint import read_metadata

ONNX = ExportOptions(("onnx",), ("fp32",))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALEPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def key(checkpoint: Path, options: ExportOptions = ONNX, **tools: str) -> str:
    config = read_metadata(checkpoint)["config"]
    return cache_key(checkpoint, config, options, {**tool_versions(), **tools})


def files(bundle: Path) -> dict[str, bytes]:
    return {str(p.relative_to(bundle)): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}


def test_a_second_export_is_the_first_one_and_traces_nothing(place, tiny_checkpoint, monkeypatch):
    first = export(tiny_checkpoint("liif"), "one.bundle", ONNX)
    monkeypatch.setattr(exporter, "export_bundle", None)
    second = export(tiny_checkpoint("liif"), "two.bundle", ONNX)
    assert files(Path("two.bundle")) == files(Path("one.bundle"))
    assert open_bundle("two.bundle", verify="all").manifest == first.manifest == second.manifest
    assert list(exported_bundles()) == [first.manifest.name]
    with pytest.raises(OutputError, match=r"two\.bundle exists"):
        export(tiny_checkpoint("liif"), "two.bundle", ONNX)
    with pytest.raises(TypeError):
        export(tiny_checkpoint("liif"), "three.bundle", ONNX, cache=False)


def test_a_key_depends_on_all_that_makes_a_bundle(place, tiny_checkpoint, monkeypatch):
    one = tiny_checkpoint("liif")
    other = shutil.copyfile(one, "renamed.safetensors")
    changed = bytearray(one.read_bytes())
    changed[-1] ^= 1
    Path("changed").mkdir()
    again = Path("changed") / one.name
    again.write_bytes(changed)
    keys = [
        key(one),
        key(tiny_checkpoint("igconv")),
        key(Path(other)),
        key(again),
        key(one, ExportOptions(("onnx",), ("fp16",))),
        key(one, ExportOptions(("onnx", "coreml"), ("fp32",))),
        key(one, ExportOptions(("onnx",), ("fp32",), license="MIT")),
        key(one, ExportOptions(("onnx",), ("fp32",), keep_float32=("encoder",))),
        key(one, torch="0"),
    ]
    monkeypatch.setattr(exporter, "_sources", lambda: "other code")
    keys.append(key(one))
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert key(one, ExportOptions(("onnx",), ("fp32",), overwrite=True)) == keys[0]


def test_networks_with_parts_of_other_packages_are_not_kept(tiny_checkpoint):
    config = read_metadata(tiny_checkpoint("liif"))["config"]
    for role in ("encoder", "upsampler"):
        for part in ({"name": "theirs"}, {}, "liif", None, {"name": []}):
            assert cache_key(tiny_checkpoint("liif"), {**config, role: part}, ONNX, {}) == ""
    assert from_cache("", Path("never"), False) is None


def test_a_damaged_entry_is_removed_and_made_again(place, tiny_checkpoint):
    made = export(tiny_checkpoint("liif"), "one.bundle", ONNX)
    (entry,) = exported_bundles().values()
    graph = entry / made.manifest.graphs["onnx"][0].path
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    export(tiny_checkpoint("liif"), "two.bundle", ONNX)
    open_bundle("two.bundle", verify="all")
    open_bundle(next(iter(exported_bundles().values())), verify="all")


def test_what_was_used_longest_ago_makes_room(place, tiny_bundle):
    bundle = tiny_bundle("liif")
    size = sum(len(data) for data in files(bundle).values())
    for name in "abc":
        keep(name * 64, bundle, name, most_bytes=2 * size)
    assert list(exported_bundles()) == ["b", "c"]
    assert fetch("b" * 64) is not None
    keep("d" * 64, bundle, "d", most_bytes=2 * size)
    assert list(exported_bundles()) == ["b", "d"]
    keep("e" * 64, bundle, "e", most_bytes=1)
    assert list(exported_bundles()) == ["e"], "the newest one stays, however large it is"


def test_what_a_killed_process_left_is_no_entry_and_goes(place, tiny_bundle):
    left = cache_folder() / f".{'f' * 64}"
    shutil.copytree(tiny_bundle("liif"), left / "f.bundle")
    assert exported_bundles() == {}
    keep("a" * 64, tiny_bundle("liif"), "a")
    assert list(exported_bundles()) == ["a"]
    assert not left.exists()


def test_a_cache_that_cannot_be_written_is_no_error(place, tiny_bundle, monkeypatch):
    (place / "file").touch()
    monkeypatch.setenv("SCALEPORT_CACHE", str(place / "file"))
    keep("a" * 64, tiny_bundle("liif"), "a")
    assert exported_bundles() == {}
    assert fetch("a" * 64) is None


def put(arguments: tuple[str, str]) -> None:
    number, bundle = arguments
    for _ in range(5):
        keep(number * 64, Path(bundle), number)
        for path in exported_bundles().values():
            assert isinstance(read_manifest(path), Manifest)


def test_processes_may_use_it_at_the_same_time(place, tiny_bundle):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(put, [(name, str(tiny_bundle("liif"))) for name in ("a", "a", "b")])
    assert list(exported_bundles()) == ["a", "b"]
    for path in exported_bundles().values():
        open_bundle(path, verify="all")
