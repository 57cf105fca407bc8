from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from bundle_samples import CONTENT, manifest, write

from scaleport.bundle.manifest import MANIFEST_NAME, Parity
from scaleport.bundle.reader import open_bundle
from scaleport.bundle.writer import BundleWriter, update_manifest
from scaleport.errors import ArtifactError, OutputError, UsageError


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_round_trip(tmp_path: Path) -> None:
    target = tmp_path / "tiny.bundle"
    written = write(target)
    opened = open_bundle(target, verify="all")
    assert opened.manifest == written
    assert set(written.files) == set(CONTENT)
    for relpath, data in CONTENT.items():
        assert opened.file(relpath).read_bytes() == data
        assert written.files[relpath].sha256 == hashlib.sha256(data).hexdigest()
        assert written.files[relpath].bytes == len(data)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.bundle"]


def test_files_an_exporter_adds_itself_are_listed(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b", overwrite=False) as writer:
        for relpath in CONTENT:
            writer.path(relpath).write_bytes(b"x")
        (writer.path("onnx/fp32/encode.onnx").parent / "weights.data").write_bytes(b"w")
        files = writer.finish(manifest()).files
    assert "onnx/fp32/weights.data" in files


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_every_file_follows_the_umask(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    before = os.umask(umask)
    try:
        with BundleWriter(tmp_path / "b", overwrite=False) as writer:
            for relpath, data in CONTENT.items():
                path = writer.path(relpath)
                path.write_bytes(data)
                # As coremltools leaves them, and as a file that was copied with its mode.
                path.chmod(0o600 if "coreml" in relpath else 0o777)
                path.parent.chmod(0o700)
            writer.finish(manifest())
    finally:
        os.umask(before)
    modes = {p: p.stat().st_mode & 0o777 for p in (tmp_path / "b", *(tmp_path / "b").rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {folder}
    assert {mode for path, mode in modes.items() if path.is_file()} == {file}
    assert len(modes) > len(CONTENT)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_a_backend_needs_its_own_files_only(bundle: Path) -> None:
    """A bundle of another user whose Core ML folder is closed, as earlier versions wrote it."""
    closed = bundle / "coreml/fp16/encode.mlpackage"
    closed.chmod(0)
    (bundle / "openvino/fp32/encode.bin").chmod(0)
    ours = os.geteuid()
    reachable = [
        bundle,
        *(p for p in bundle.parents if p.stat().st_uid == ours and len(p.parts) > 2),
    ]
    modes = {path: path.stat().st_mode for path in reachable}
    try:
        if ours == 0:  # whom no permission stops
            for path in reachable:
                path.chmod(0o755)
            os.seteuid(65534)
        opened = open_bundle(bundle)
        assert opened.file("onnx/fp32/render.onnx").is_file()
        assert opened.checkpoint().is_file()
        for denied in ("coreml/fp16/encode.mlpackage", "openvino/fp32/encode.xml"):
            with pytest.raises(ArtifactError, match=r"cannot read .*ermission.*check its perm"):
                opened.file(denied)
        with pytest.raises(ArtifactError, match="cannot read"):
            open_bundle(bundle, verify="all")
    finally:
        os.seteuid(ours)
        closed.chmod(0o755)
        for path, mode in modes.items():
            path.chmod(mode & 0o7777)


def test_existing_target_needs_overwrite(bundle: Path) -> None:
    before = tree(bundle)
    with pytest.raises(OutputError, match="exists"):
        write(bundle)
    assert tree(bundle) == before
    write(bundle, {**CONTENT, "model.safetensors": b"other"}, overwrite=True)
    assert open_bundle(bundle).checkpoint().read_bytes() == b"other"
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


@pytest.mark.parametrize("content", [None, b'{"manifest_version": 3}', b"[1]"])
def test_never_overwrites_what_is_no_bundle(tmp_path: Path, content: bytes | None) -> None:
    target = tmp_path / "documents"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    if content is not None:
        (target / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(OutputError, match="not a bundle"):
        write(target, overwrite=True)
    assert (target / "thesis.txt").read_text() == "years of work"


def test_damaged_bundle_can_be_overwritten(bundle: Path) -> None:
    (bundle / MANIFEST_NAME).write_bytes(b"")
    write(bundle, overwrite=True)
    open_bundle(bundle, verify="all")


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"mine")
    with pytest.raises(OutputError, match="not a bundle"):
        write(tmp_path / "b", overwrite=True)
    assert (tmp_path / "b").read_bytes() == b"mine"


def test_missing_parents_are_made_and_go_again_if_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError), BundleWriter(tmp_path / "new/sub/b", overwrite=False):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "new/sub/b")
    assert open_bundle(tmp_path / "new/sub/b", verify="all").manifest.name == "tiny"


def test_a_parent_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_text("in the way")
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "nowhere" / "b")
    assert "nowhere" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_long_name_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write(tmp_path / ("n" * 250))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot write"):
            write(tmp_path / "b")
    finally:
        tmp_path.chmod(0o700)


def test_exception_in_the_middle_keeps_the_old_bundle(bundle: Path) -> None:
    before = tree(bundle)
    with pytest.raises(ZeroDivisionError), BundleWriter(bundle, overwrite=True) as writer:
        writer.path("onnx/fp32/encode.onnx").write_bytes(b"half")
        raise ZeroDivisionError
    assert tree(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


def test_leaving_without_finish_writes_nothing(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b", overwrite=False) as writer:
        writer.path("model.safetensors").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_failed_rename_keeps_the_old_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before = tree(bundle)
    real, calls = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="No space left"):
        write(bundle, {**CONTENT, "model.safetensors": b"new"}, overwrite=True)
    monkeypatch.undo()
    assert tree(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


# Where the process is killed: at the n-th call of one of these, which stand for every step of
# finish() that touches the disk.
KILL = """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from bundle_samples import CONTENT, write
    import scaleport.bundle.writer as module

    owner, name = (Path if sys.argv[3] == "rename" else module), sys.argv[3]
    real, left = getattr(owner, name), [int(sys.argv[4])]

    def killer(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)
        return real(*args, **kwargs)

    setattr(owner, name, killer)
    write(Path(sys.argv[2]), {**CONTENT, "model.safetensors": b"new"}, overwrite=True)
"""


def killed(target: Path, name: str, count: int) -> None:
    code = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(KILL),
            str(Path(__file__).parent),
            str(target),
            name,
            str(count),
        ],
        check=False,
    ).returncode
    assert code == 9


@pytest.mark.parametrize(
    ("name", "count"),
    [("sha256_file", 4), ("_sync_tree", 1), ("rename", 1), ("rename", 2), ("_sync_directory", 1)],
)
def test_kill_leaves_the_old_bundle_or_none(bundle: Path, name: str, count: int) -> None:
    before = tree(bundle)
    killed(bundle, name, count)
    if (name, count) == ("rename", 2):  # between the two renames
        assert not bundle.exists()
    else:
        assert tree(bundle) == before
    # The next export finds the old bundle again, whatever happened, and clears the rest.
    with pytest.raises(ZeroDivisionError), BundleWriter(bundle, overwrite=True):
        raise ZeroDivisionError
    assert tree(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


def test_kill_of_the_first_export_leaves_no_target(tmp_path: Path) -> None:
    target = tmp_path / "b"
    killed(target, "sha256_file", 2)
    assert not target.exists()
    assert list(tmp_path.iterdir()) != []
    write(target)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_two_exports_of_one_target_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "b"
    with BundleWriter(target, overwrite=True) as writer:
        for relpath, data in CONTENT.items():
            writer.path(relpath).write_bytes(data)
        writer.path("model.safetensors").write_bytes(b"first")
        with (
            pytest.raises(OutputError, match="another export"),
            BundleWriter(target, overwrite=True),
        ):
            raise AssertionError("both hold the lock")
        write(tmp_path / "another")
        writer.finish(manifest())
    assert open_bundle(target, verify="all").checkpoint().read_bytes() == b"first"
    write(target, overwrite=True)


@pytest.mark.parametrize(
    "relpath", ["../x", "/x", "a//b", "a/./b", "a\\b", "manifest.json", "MANIFEST.JSON", "c:x", ""]
)
def test_bad_paths_are_refused(tmp_path: Path, relpath: str) -> None:
    with (
        BundleWriter(tmp_path / "b", overwrite=False) as writer,
        pytest.raises(UsageError, match="bundle path"),
    ):
        writer.path(relpath)


def test_a_manifest_that_does_not_fit_is_refused(bundle: Path) -> None:
    before = tree(bundle)
    for wrong, reason in (
        (manifest(name="no/slash"), "name"),
        (manifest(receptive_field=-1), "receptive_field"),
        (manifest(), "not among the listed files"),
    ):
        with (
            pytest.raises(OutputError, match=reason),
            BundleWriter(bundle, overwrite=True) as writer,
        ):
            writer.path("model.safetensors").write_bytes(b"x")
            writer.finish(wrong)
    assert tree(bundle) == before


def test_links_are_not_put_into_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"x")
    with (
        pytest.raises(OutputError, match="regular file"),
        BundleWriter(tmp_path / "b", overwrite=False) as writer,
    ):
        writer.path("model.safetensors").symlink_to(tmp_path / "elsewhere")
        writer.finish(manifest(graphs={}))
    assert not (tmp_path / "b").exists()


def test_writer_is_closed_after_finish(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b", overwrite=False) as writer:
        writer.path("model.safetensors").write_bytes(b"x")
        writer.finish(manifest(graphs={}))
        with pytest.raises(UsageError, match="finished"):
            writer.path("late")
        with pytest.raises(UsageError, match="finished"):
            writer.finish(manifest(graphs={}))


def test_target_that_is_a_link_keeps_being_one(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(bundle)
    write(link, {**CONTENT, "model.safetensors": b"new"}, overwrite=True)
    assert link.is_symlink()
    assert open_bundle(bundle).checkpoint().read_bytes() == b"new"


def test_update_manifest_replaces_it_alone(bundle: Path) -> None:
    opened = open_bundle(bundle)
    before = tree(bundle)
    parity = Parity(gates={"fp32": {"max_abs": 1e-4}}, device={}, tool_versions={}, results=())
    update_manifest(bundle, msgspec.structs.replace(opened.manifest, parity=parity))
    assert open_bundle(bundle, verify="all").manifest.parity == parity
    after = tree(bundle)
    assert {k for k in after if after[k] != before.get(k)} == {MANIFEST_NAME}
    assert set(after) == set(before)


def test_update_manifest_refuses_another_bundle(bundle: Path) -> None:
    stale = open_bundle(bundle).manifest
    write(bundle, {**CONTENT, "model.safetensors": b"new"}, overwrite=True)
    before = tree(bundle)
    with pytest.raises(OutputError, match="changed"):
        update_manifest(bundle, stale)
    with pytest.raises(OutputError, match="not valid"):
        update_manifest(bundle, msgspec.structs.replace(stale, parameters=-1))
    assert tree(bundle) == before


def test_update_manifest_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        update_manifest(tmp_path / "none", manifest(graphs={}))
    with pytest.raises(ArtifactError, match="not a bundle"):
        update_manifest(tmp_path, manifest(graphs={}))
    assert list(tmp_path.iterdir()) == []
