"""Whatever a user gets wrong: one line, the documented exit code, and nothing written."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scaleport.runtimes.base import Availability
from scaleport.runtimes.registry import backend_names, get_backend

LONG = "a" * 300
UP = "upscale photo.png -m photo.bundle"
RUN = f"{UP} -s 2 --backend onnxruntime"
EXPORT = "export tiny.safetensors --format onnx"


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.fixture
def refused(run, folder: Path) -> Callable[..., None]:
    """Run a command and hold it to what every error must be like."""

    def check(line: str, code: int, *words: str) -> None:
        before = snapshot(folder)
        ran = run(line)
        assert ran.code == code, ran
        assert ran.err.startswith("error: "), ran.err
        assert ran.err.endswith("\n")
        assert ran.err.count("\n") == 1, ran.err
        assert "Traceback" not in ran.out + ran.err
        assert "internal error" not in ran.err
        for word in words:
            assert word in ran.err
        # Only doctor reports on the machine before it looks at the bundle.
        assert ran.out == "" or line.startswith("doctor")
        assert snapshot(folder) == before

    return check


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (f"{UP} -s 0", "above 0"),
        (f"{UP} -s -2", "above 0"),
        (f"{UP} -s nan", "finite"),
        (f"{UP} -s inf", "finite"),
        (f"{UP} -s 1e999", "finite"),
        (f"{UP} -s 8.01", "1 to 8"),
        (f"{UP} -s 0.99", "1 to 8"),
        (f"{UP} -s 1e-300", "1 to 8"),
        (f"{UP} -s 2,9", "1 to 8"),
        (f"{UP} -s big", "such as 2.7"),
        (f"{UP} -s 2y", "such as 2.7"),
        (f"{UP} -s ''", "such as 2.7"),
        (f"{UP} -s 2,", "such as 2.7"),
        (f"{UP} -s 2,3,4", "pair"),
        (f"{UP} --size 0x20", "1920x1080"),
        (f"{UP} --size 40", "1920x1080"),
        (f"{UP} --size -40x20", "1920x1080"),
        (f"{UP} --size 40x13", "x1 to x8"),
        (f"{UP} --size 999999999x999999999", "x1 to x8"),
        (f"{UP} -s 2 --size 40x28", "either"),
        (f"{UP} -s", "requires an argument; see scaleport"),
        (f"{UP} -s 2 --threads -1", "--threads"),
        (f"{UP} -s 2 --tile many", "--tile"),
        (f"{UP} -s 2 --nope", "--nope"),
        ("upscale -m photo.bundle -s 2", "INPUT"),
        ("enlarge photo.png", "enlarge"),
        ("inspect", "--models"),
        ("inspect photo.bundle --models", "--models"),
        ("validate photo.bundle --rejudge", "no parity results"),
        ("validate photo.bundle --rejudge --quick", "--rejudge"),
        ("validate photo.bundle --gate-fp32-psnr nan", "gate"),
        (f"{EXPORT} --format bmp", "bmp"),
        ("export tiny.safetensors --format ''", "unknown format"),
        (f"{EXPORT} --precision fp8", "fp32 or fp16"),
        (f"{EXPORT} --freeze-scale 2", "native scales"),
        (f"{EXPORT} --freeze-scale two", "whole numbers"),
        (f"{EXPORT} --height 3:2:1", "MIN <= OPT <= MAX"),
        (f"{EXPORT} --width wide", "MIN:OPT:MAX"),
    ],
)
def test_bad_argument(refused, checkpoint, line: str, word: str) -> None:
    refused(line, 2, word)


@pytest.fixture
def checkpoint(folder: Path, tiny_checkpoint) -> None:
    """``tiny.safetensors``; ``cut.safetensors``, its first half; ``old.safetensors``, text."""
    data = tiny_checkpoint("liif").read_bytes()
    Path("tiny.safetensors").write_bytes(data)
    Path("cut.safetensors").write_bytes(data[: len(data) // 2])
    Path("old.safetensors").write_text("not a checkpoint")


@pytest.fixture
def files(folder: Path) -> None:
    """Files and folders that are not what they are taken for."""
    Path("empty.png").touch()
    Path("text.png").write_text("This is no picture.\n")
    Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:300])
    Path("file").write_text("in the way")
    Path("photo_x2.png").mkdir()
    Path("plain").mkdir()
    Path("none").mkdir()
    Path("dangling.png").symlink_to("gone/there.png")


@pytest.mark.parametrize(
    ("line", "code", "word"),
    [
        ("upscale empty.png -m photo.bundle -s 2", 2, "empty (0 bytes)"),
        ("upscale text.png -m photo.bundle -s 2", 2, "unsupported kind"),
        ("upscale cut.png -m photo.bundle -s 2", 2, "damaged"),
        ("upscale gone.png -m photo.bundle -s 2", 2, "cannot read gone.png"),
        ("upscale 'go\nne.png' -m photo.bundle -s 2", 2, "cannot read go ne.png"),
        (f"upscale {LONG} -m photo.bundle -s 2", 2, "too long"),
        ("upscale none -m photo.bundle -s 2", 2, "holds no images"),
        ("upscale photo.png -m gone.bundle -s 2", 2, "there is no bundle"),
        (f"upscale photo.png -m {LONG} -s 2", 4, "too long"),
        ("upscale photo.png -m plain -s 2", 4, "not a bundle"),
        ("upscale photo.png -m photo.png -s 2", 4, "not a bundle"),
        ("upscale photo.png -m '' -s 2", 4, "not a bundle"),
        ("inspect gone", 2, "no checkpoint gone"),
        ("inspect plain", 4, "not a bundle"),
        ("inspect photo.png", 4, "not a Scaleport checkpoint"),
        (f"inspect {LONG}", 2, "too long"),
        ("inspect cut.safetensors", 4, "cut.safetensors"),
        ("doctor gone.bundle", 2, "there is no bundle"),
        ("doctor plain", 4, "not a bundle"),
        ("validate gone.bundle", 2, "there is no bundle"),
        ("validate plain", 4, "not a bundle"),
        ("export gone.safetensors", 2, "no checkpoint"),
        ("export plain", 2, "is a directory"),
        ("export old.safetensors", 4, "not a Scaleport checkpoint"),
        ("export cut.safetensors", 4, "cut.safetensors"),
        ("export cut.safetensors --format onnx -o gone/new.bundle", 4, "cut.safetensors"),
        ("export empty.png", 4, "not a Scaleport checkpoint"),
        ("import gone.pth -o new.safetensors", 2, "there is no file"),
        (f"import {LONG} -o new.safetensors", 2, "there is no file"),
        ("import text.png -o new.safetensors", 4, "text.png is damaged"),
        ("import empty.png -o new.safetensors", 4, "torch.load"),
    ],
)
def test_input_that_is_no_input(refused, checkpoint, files, line, code, word) -> None:
    refused(line, code, word)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (f"{RUN} -o file/out.png", "file is a file, not a directory"),
        (f"{RUN} -o file/", "file is a file, not a directory"),
        ("upscale cut.png -m photo.bundle -s 2 -o gone/deeper/", "damaged"),
        ("upscale photo.png -m photo.bundle -s 2 -o gone/out.bmp", ".png"),
        (RUN, "photo_x2.png: it is a directory"),
        (f"{RUN} -o out.bmp", ".png"),
        (f"{RUN} -o out", "suffix"),
        (f"{RUN} -o ''", "empty"),
        (f"{RUN} -o photo.png", "input itself"),
        (f"{RUN} -o dangling.png", "dangling.png"),
        (f"{RUN} -o {LONG}.png", "too long"),
        (f"{RUN} -o {LONG}/", "too long"),
        ("upscale photo.png cut.png -m photo.bundle -s 2 -o one.png", "several images"),
        (f"{EXPORT} -o photo.bundle", "--overwrite"),
        (f"{EXPORT} -o file/new.bundle", "file"),
        (f"{EXPORT} -o plain --overwrite", "not a bundle"),
        (f"{EXPORT} -o photo.png --overwrite", "not a bundle"),
        (f"{EXPORT} -o {LONG}", "too long"),
        ("import w.pth -o out.pth", ".safetensors"),
        ("import w.pth -o tiny.safetensors", "--overwrite"),
        ("import w.pth -o gone/new.safetensors", "torch.load"),
        ("import w.pth -o file/new.safetensors", "cannot write to file"),
        (f"import w.pth -o {LONG}.safetensors", "torch.load"),
    ],
)
def test_output_that_cannot_be_written(refused, checkpoint, files, line, word) -> None:
    Path("w.pth").write_text("read only when the output could be written")
    code = 4 if word == "torch.load" else 2
    refused(line, code, word)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a place where even root cannot write")
def test_folder_without_permission(refused) -> None:
    refused(f"{RUN} -o /proc/", 2, "cannot write to /proc")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_tomorrow(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format_version": 999}))


DAMAGE = {
    "manifest cut": (cut, "manifest.json", "damaged"),
    "manifest emptied": (lambda path: path.write_bytes(b""), "manifest.json", "damaged"),
    "manifest of a newer version": (of_tomorrow, "manifest.json", "newer version"),
    "manifest gone": (Path.unlink, "manifest.json", "not a bundle"),
    "graph cut": (cut, "onnx/fp32/render.onnx", "bytes instead of"),
    "graph gone": (Path.unlink, "onnx/fp32/render.onnx", "missing"),
    "graph altered": (flip, "onnx/fp32/render.onnx", "sha256"),
    "folder of a graph gone": (lambda path: shutil.rmtree(path), "onnx", "missing"),
    "checkpoint gone": (Path.unlink, "model.safetensors", "missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize(
    "line",
    [
        RUN,
        "inspect photo.bundle --verify",
        "doctor photo.bundle --backend onnxruntime",
        "validate photo.bundle --quick --backend onnxruntime --precision fp32",
    ],
    ids=lambda line: line.split()[0],
)
def test_damaged_bundle(refused, folder: Path, kind: str, line: str) -> None:
    damage, name, word = DAMAGE[kind]
    damage(folder / "photo.bundle" / name)
    refused(line, 4, word)


def test_altered_weights_beside_a_graph(refused, folder: Path) -> None:
    flip(folder / "photo.bundle/openvino/fp32/render.bin")
    refused(f"{UP} -s 2 --backend openvino", 4, "render.bin", "sha256")


BACKEND_USERS = [UP + " -s 2", "validate photo.bundle --quick", "doctor photo.bundle"]


@pytest.mark.parametrize("line", BACKEND_USERS, ids=lambda line: line.split()[0])
class TestBackend:
    def test_of_an_unknown_name(self, refused, line: str) -> None:
        refused(f"{line} --backend abacus", 2, "abacus", *backend_names())

    def test_that_cannot_run_here(self, refused, monkeypatch, line: str) -> None:
        none = Availability(False, "There is no usable NVIDIA GPU.")
        monkeypatch.setattr(type(get_backend("tensorrt")), "availability", lambda _: none)
        refused(f"{line} --backend tensorrt", 3, "tensorrt", "no usable NVIDIA GPU")

    def test_that_is_not_installed(self, refused, monkeypatch, line: str) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        refused(f"{line} --backend onnxruntime", 3, "pip install 'scaleport[onnxruntime]'")


def test_no_backend_at_all(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    none = Availability(False, "switched off")
    for name in backend_names():
        monkeypatch.setattr(type(get_backend(name)), "availability", lambda _: none)
    refused(f"{UP} -s 2", 3, "no backend can run photo.bundle here", *backend_names())


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        ("--backend coreml", 2, "holds no coreml graphs"),
        ("--precision int8", 2, "int8"),
        ("--precision fp12", 2, "fp12"),
        ("--backend onnxruntime --device abacus", 3, "abacus"),
        ("--backend openvino --device abacus", 3, "abacus"),
        ("--backend torch --device abacus", 3, "abacus"),
        ("--backend torch --device cuda:99", 3, "cuda:99"),
    ],
)
def test_what_the_backend_or_bundle_does_not_have(refused, options, code, word) -> None:
    refused(f"{UP} -s 2 {options}", code, word)
