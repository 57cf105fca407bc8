from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import CONTENT, onnx, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scaleport.bundle import reader
from scaleport.bundle.manifest import MANIFEST_NAME
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import ArtifactError, UsageError


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((bundle / MANIFEST_NAME).read_bytes())
    change(content)
    (bundle / MANIFEST_NAME).write_text(json.dumps(content))


def refused(bundle: Path, *words: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        open_bundle(bundle)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_graph_lookup(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.path == bundle
    assert opened.formats() == ("coreml", "onnx", "openvino")
    assert opened.precisions("onnx") == ("fp32", "fp16")
    assert opened.precisions("coreml") == ("fp16",)
    assert opened.precisions("tensorrt") == ()
    assert opened.graph("onnx", "render", "fp32").path == "onnx/fp32/render.onnx"
    assert len(opened.graphs("onnx", "encode")) == 2
    with pytest.raises(UsageError, match=r"no onnx graph render in fp16; there are: encode$"):
        opened.graph("onnx", "render", "fp16")
    with pytest.raises(UsageError, match=r"no onnx graphs in int8; there are: fp32, fp16$"):
        opened.graph("onnx", "render", "int8")
    with pytest.raises(UsageError, match=r"no GPU.*coreml, onnx, openvino"):
        opened.graph("tensorrt", "render", "fp32")


def test_checkpoint(bundle: Path, tmp_path: Path) -> None:
    assert open_bundle(bundle).checkpoint() == bundle / "model.safetensors"
    without = {k: v for k, v in CONTENT.items() if k != "model.safetensors"}
    write(tmp_path / "b", without)
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        open_bundle(tmp_path / "b").checkpoint()


def test_directory_graph_is_verified_whole(bundle: Path) -> None:
    package = "coreml/fp16/encode.mlpackage"
    assert open_bundle(bundle).file(package) == bundle / package
    (bundle / package / "Manifest.json").write_bytes(b"[]")
    with pytest.raises(ArtifactError, match=r"mlpackage/Manifest\.json"):
        open_bundle(bundle).file(package)


def test_wrong_hash_is_found_at_first_use(bundle: Path) -> None:
    (bundle / "onnx/fp32/encode.onnx").write_bytes(onnx("eNcode"))
    opened = open_bundle(bundle)
    assert opened.file("openvino/fp32/encode.xml").exists()
    with pytest.raises(ArtifactError, match=r"encode\.onnx.*sha256.*export the model again"):
        opened.file("onnx/fp32/encode.onnx")
    with pytest.raises(ArtifactError, match=r"encode\.onnx"):
        open_bundle(bundle, verify="all")


def test_sidecars_are_verified_with_their_graph(bundle: Path) -> None:
    (bundle / "onnx/fp32/render.onnx.data").write_bytes(b"render weightS")
    opened = open_bundle(bundle)
    with pytest.raises(ArtifactError, match=r"render\.onnx\.data"):
        opened.file("onnx/fp32/render.onnx")
    assert opened.file("onnx/fp16/encode.onnx").exists()


def test_each_file_is_hashed_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    real = reader.sha256_file

    def counting(path: Path) -> Any:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(reader, "sha256_file", counting)
    opened = open_bundle(bundle)
    assert hashed == []
    opened.file("model.safetensors")
    opened.file("model.safetensors")
    assert hashed == [bundle / "model.safetensors"]


def test_unlisted_file_is_not_handed_out(bundle: Path) -> None:
    (bundle / "extra.bin").write_bytes(b"x")
    opened = open_bundle(bundle)
    for relpath in ("extra.bin", "", "onnx/fp32/encode.onnx/", "../tiny.bundle/model.safetensors"):
        with pytest.raises(ArtifactError, match="does not list"):
            opened.file(relpath)


def test_truncated_missing_and_replaced_files(bundle: Path) -> None:
    victim = bundle / "onnx/fp32/render.onnx.data"
    os.truncate(victim, 5)
    refused(bundle, "render.onnx.data", "5 bytes instead of 14", "export the model again")
    victim.unlink()
    refused(bundle, "render.onnx.data", "missing", "export the model again")
    victim.mkdir()
    refused(bundle, "render.onnx.data", "not a regular file")


def test_file_that_vanishes_after_opening(bundle: Path) -> None:
    opened = open_bundle(bundle)
    (bundle / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        opened.checkpoint()


def test_links(bundle: Path, tmp_path: Path) -> None:
    victim = bundle / "onnx/fp32/encode.onnx"
    outside = tmp_path / "outside"
    outside.write_bytes(victim.read_bytes())
    victim.unlink()
    victim.symlink_to(outside)
    refused(bundle, "encode.onnx", "link out of the bundle")
    victim.unlink()
    victim.symlink_to(victim.name)
    refused(bundle, "encode.onnx")
    (bundle / "kept").write_bytes(CONTENT["onnx/fp32/encode.onnx"])
    victim.unlink()
    victim.symlink_to("../../kept")
    assert open_bundle(bundle, verify="all").file("onnx/fp32/encode.onnx") == victim


def test_link_directory_out_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    (bundle / "openvino").rename(tmp_path / "openvino")
    (bundle / "openvino").symlink_to(tmp_path / "openvino")
    refused(bundle, "openvino", "link out of the bundle")


def test_link_swapped_in_after_opening(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    victim = bundle / "model.safetensors"
    victim.rename(tmp_path / "moved")
    victim.symlink_to(tmp_path / "moved")
    with pytest.raises(ArtifactError, match="link out"):
        opened.checkpoint()


@pytest.mark.parametrize(
    "relpath",
    [
        "/etc/hostname",
        "../outside",
        "onnx/../../outside",
        "onnx\\fp32\\x",
        "C:/x",
        "c:x",
        "a//b",
        "./a",
        "a/.",
        "a/",
        "nul\u0000byte",
        "line\nbreak",
        "a./b",
        "a ",
        "manifest.json",
        "Manifest.JSON",
        "",
        "x" * 600,
    ],
)
def test_path_tricks(bundle: Path, relpath: str) -> None:
    (bundle.parent / "outside").write_bytes(b"")
    entry = {"sha256": "0" * 64, "bytes": 0}
    edit(bundle, lambda m: m["files"].update({relpath: entry}))
    refused(bundle, "export the model again")


@pytest.mark.parametrize(
    ("first", "second"), [("a/File", "A/fILE"), ("straße", "STRASSE"), ("caf\u00e9", "cafe\u0301")]
)
def test_paths_that_differ_in_case_only(bundle: Path, first: str, second: str) -> None:
    for relpath in (first, second):
        (bundle / relpath).parent.mkdir(exist_ok=True)
        (bundle / relpath).write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    edit(bundle, lambda m: m["files"].update({first: {"sha256": empty, "bytes": 0}}))
    open_bundle(bundle, verify="all")
    edit(bundle, lambda m: m["files"].update({second: {"sha256": empty, "bytes": 0}}))
    refused(bundle, "differ in case only")


def test_graph_must_be_a_listed_file(bundle: Path) -> None:
    edit(bundle, lambda m: m["files"].pop("onnx/fp32/encode.onnx"))
    refused(bundle, "onnx/fp32/encode.onnx", "not among the listed files")


def test_versions(bundle: Path) -> None:
    edit(bundle, lambda m: m.update(format_version=2, invented={"a": 1}))
    refused(bundle, "newer version", "2", "upgrade")
    edit(bundle, lambda m: m.update(format_version=0))
    refused(bundle, "unknown bundle format 0")
    edit(bundle, lambda m: m.update(format_version="1"))
    refused(bundle, "format_version")


def test_unknown_and_missing_fields(bundle: Path) -> None:
    edit(bundle, lambda m: m.update(invented=1))
    refused(bundle, "invented", "export the model again")
    edit(bundle, lambda m: (m.pop("invented"), m.pop("scale")))
    refused(bundle, "scale")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"format_version": 1e999}',
        b'{"format_version": 1, "name": "\\ud800"}',
        b'{"format_version": 1, "model": ' + b'{"a":' * 100_000,
        b'{"format_version": ' + b"9" * 6000 + b"}",
    ],
)
def test_manifest_that_is_none(bundle: Path, data: bytes) -> None:
    (bundle / MANIFEST_NAME).write_bytes(data)
    refused(bundle, MANIFEST_NAME, "export the model again")


def test_manifest_size_is_capped(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_MANIFEST_BYTES", 100)
    refused(bundle, MANIFEST_NAME, "larger")


def test_manifest_that_is_not_a_regular_file(bundle: Path, tmp_path: Path) -> None:
    source = bundle / MANIFEST_NAME
    (tmp_path / "m.json").write_bytes(source.read_bytes())
    source.unlink()
    source.symlink_to(tmp_path / "m.json")
    refused(bundle, MANIFEST_NAME)
    source.unlink()
    os.mkfifo(source)
    refused(bundle, MANIFEST_NAME)
    source.unlink()
    source.symlink_to(MANIFEST_NAME)
    refused(bundle, MANIFEST_NAME)


def test_not_a_bundle(tmp_path: Path) -> None:
    refused(tmp_path, "not a bundle")
    (tmp_path / "model.onnx").write_bytes(b"x")
    refused(tmp_path / "model.onnx", "not a bundle")
    with pytest.raises(UsageError, match=r"no bundle at .*none$"):
        open_bundle(tmp_path / "none")
    with pytest.raises(UsageError, match=r"; scaleport export liif-small makes"):
        open_bundle(Path("liif-small"))
    (tmp_path / "own.safetensors").write_bytes(b"x")
    refused(tmp_path / "own.safetensors", "not a bundle", "scaleport export")
    with pytest.raises(UsageError):
        open_bundle("nul\0byte")


PATCH = st.binary(max_size=6) | st.sampled_from(
    [
        b"../",
        b"\\u0000",
        b"1e999",
        b"-1",
        b"null",
        b'"',
        b"{",
        b"]",
        b"\\ud800",
        b"\xff",
        b"[" * 3000,
    ]
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), PATCH), max_size=4),
    keep=st.floats(0, 1) | st.just(1.0),
)
@example(edits=[], keep=0.0)
def test_altered_manifests_load_or_are_artifact_errors(
    bundle: Path, edits: list[tuple[float, int, bytes]], keep: float
) -> None:
    source = bundle / MANIFEST_NAME
    original = source.read_bytes()
    data = original
    for where, length, patch in edits:
        start = int(where * len(data))
        data = data[:start] + patch + data[start + length :]
    data = data[: round(keep * len(data))]
    source.write_bytes(data)
    try:
        try:
            assert isinstance(open_bundle(bundle, verify="all"), Bundle)
        except ArtifactError as error:
            assert "\n" not in str(error)
    finally:
        source.write_bytes(original)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_altered_values_load_or_are_artifact_errors(bundle: Path, data: st.DataObject) -> None:
    source = bundle / MANIFEST_NAME
    original = source.read_bytes()
    content = json.loads(original)
    node: Any = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            break
        node = inner
    if isinstance(node, dict) and data.draw(st.booleans()):
        node[data.draw(st.text(max_size=12))] = node.pop(key)
    else:
        node[key] = data.draw(VALUES)
    source.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    try:
        try:
            assert isinstance(open_bundle(bundle, verify="all"), Bundle)
        except ArtifactError as error:
            assert "\n" not in str(error)
    finally:
        source.write_bytes(original)
