"""A bundle that changes while it is in use, is written by several, or cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bundle"))

from bundle_samples import CONTENT, onnx, write

import scaleport
from scaleport.bundle.manifest import MANIFEST_NAME
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.bundle.writer import update_manifest
from scaleport.errors import ArtifactError, OutputError, ScaleportError

SAMPLES = str(Path(__file__).parents[1] / "bundle")
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write(tmp_path / "tiny.bundle")
    return tmp_path / "tiny.bundle"


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


class TestChangedWhileInUse:
    def test_file_that_changes_after_it_was_verified(self, bundle: Path) -> None:
        opened = open_bundle(bundle)
        path = opened.file("onnx/fp32/encode.onnx")
        path.write_bytes(onnx("eNcode"))
        with pytest.raises(ArtifactError, match="sha256 differs"):
            opened.file("onnx/fp32/encode.onnx")
        path.write_bytes(onnx("encode"))
        assert opened.file("onnx/fp32/encode.onnx") == path

    def test_file_replaced_by_one_of_the_same_size_and_time(self, bundle: Path) -> None:
        opened = open_bundle(bundle)
        path = opened.file("model.safetensors")
        old = path.stat()
        other = path.with_name("other")
        other.write_bytes(b"WEIGHTS" * 10)
        os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
        other.replace(path)
        with pytest.raises(ArtifactError, match="sha256 differs"):
            opened.checkpoint()

    def test_graphs_that_are_loaded_go_on_and_others_are_refused(
        self, tiny_bundle, tmp_path: Path
    ) -> None:
        mine = tmp_path / "mine.bundle"
        shutil.copytree(tiny_bundle("liif"), mine)
        image = np.random.default_rng(0).random((9, 11, 3)).astype(np.float32)
        busy = scaleport.load(mine, backend="onnxruntime")
        half = scaleport.load(mine, backend="onnxruntime")
        expected = busy(image, 2.0)
        assert half.device  # loads encode alone
        graph = mine / "onnx/fp32/render.onnx"
        data = bytearray(graph.read_bytes())
        data[len(data) // 2] ^= 1
        graph.write_bytes(data)
        np.testing.assert_array_equal(busy(image, 2.0), expected)
        with pytest.raises(ArtifactError, match=r"render\.onnx.*sha256"):
            half(image, 2.0)

    def test_bundle_that_is_exported_anew(self, bundle: Path) -> None:
        opened = open_bundle(bundle)
        opened.file("onnx/fp32/encode.onnx")
        changed = {**CONTENT, "onnx/fp32/render.onnx": onnx("rEnder")}
        write(bundle, changed, overwrite=True)
        assert opened.file("onnx/fp32/encode.onnx").exists()
        with pytest.raises(ArtifactError, match="sha256 differs"):
            opened.file("onnx/fp32/render.onnx")


# Writes the bundle four times, each time with another checkpoint; prints how often it had to wait.
EXPORTER = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from bundle_samples import CONTENT, write
    from scaleport.errors import OutputError

    won, refused = 0, 0
    while won < 4:
        try:
            text = f"{sys.argv[3]} {won:3d} ".encode() * 500
            write(Path(sys.argv[2]), {**CONTENT, "model.safetensors": text}, overwrite=True)
            won += 1
        except OutputError as error:
            if "another export is writing" not in str(error):
                raise
            refused += 1
            time.sleep(0.01)
    print(refused)
"""


def start(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), SAMPLES, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_exporters_on_one_bundle_and_a_reader(bundle: Path) -> None:
    exporters = [start(EXPORTER, bundle, name) for name in ("a", "b", "c")]
    whole, refused = 0, 0
    while any(process.poll() is None for process in exporters):
        try:
            data = open_bundle(bundle).checkpoint().read_bytes()
        except (ScaleportError, FileNotFoundError):
            refused += 1  # it was being replaced
        else:
            assert len({data[i : i + 6] for i in range(0, len(data), 6)}) == 1 or len(data) == 70
            whole += 1
    waited = 0
    for process in exporters:
        out, err = process.communicate(timeout=50)
        assert process.returncode == 0, err
        waited += int(out)
    assert waited > 0, "they never met"
    assert whole > 0
    last = open_bundle(bundle, verify="all").checkpoint().read_bytes()
    assert len(last) == 3000
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


# Dies where results are stored: before the new manifest has taken the place of the old one.
STORER = """
    import os, signal, sys
    from pathlib import Path
    import msgspec
    from scaleport.bundle.reader import read_manifest
    from scaleport.bundle.writer import update_manifest

    bundle = Path(sys.argv[2])
    changed = msgspec.structs.replace(read_manifest(bundle), license="new")
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    update_manifest(bundle, changed)
"""


@posix
def test_killed_while_results_are_stored(bundle: Path) -> None:
    before = contents(bundle)
    process = start(STORER, bundle)
    assert process.communicate(timeout=50) == ("", "")
    assert process.returncode == -signal.SIGKILL
    after = contents(bundle)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith(".") for name in after.keys() - before.keys())
    assert open_bundle(bundle, verify="all").manifest.license == ""


EXPORT = """
    import resource, sys
    from scaleport.cli.main import main

    limit = int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    line = f"export {sys.argv[2]} -o {sys.argv[3]} --format onnx --precision fp32 --overwrite"
    sys.exit(main(line.split()))
"""


@posix
def test_full_disk_in_the_middle_of_an_export(
    tiny_checkpoint, bundle: Path, tmp_path: Path
) -> None:
    target, before = bundle, contents(bundle)
    process = start(EXPORT, tiny_checkpoint("liif"), target, 3000, cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert out == ""
    assert err.startswith(f"error: cannot write {target}"), err
    assert err.count("\n") == 1, err
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A bundle in a folder that this process may read and not write, whoever runs it."""
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    root = Path(tempfile.mkdtemp(prefix="scaleport-read-only-"))
    bundle = root / "tiny.bundle"
    write(bundle)
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield bundle
    finally:
        os.seteuid(was)
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(root)


class TestReadOnly:
    def test_it_can_be_read(self, read_only: Path) -> None:
        open_bundle(read_only, verify="all")

    def test_export(self, read_only: Path) -> None:
        before = contents(read_only)
        with pytest.raises(OutputError, match=r"cannot write .*Permission denied"):
            write(read_only, overwrite=True)
        assert contents(read_only) == before

    def test_storing_results(self, read_only: Path) -> None:
        before = contents(read_only)
        with pytest.raises(OutputError, match=rf"{MANIFEST_NAME}: Permission"):
            update_manifest(read_only, read_manifest(read_only))
        assert contents(read_only) == before

    def test_signing(self, read_only: Path) -> None:
        pytest.importorskip("cryptography")
        from scaleport.bundle.signing import new_key, sign_bundle

        folder = Path(tempfile.mkdtemp())
        try:
            new_key(folder / "key")
            with pytest.raises(OutputError, match=r"cannot write .*manifest\.sig"):
                sign_bundle(read_only, folder / "key")
            assert not (read_only / "manifest.sig").exists()
        finally:
            shutil.rmtree(folder)
