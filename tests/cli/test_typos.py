"""What people get wrong, and what they are told: one line, the exit code, and the next step.

The bundle is the small one that comes with the package, so nothing is exported here.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scaleport
from scaleport.imaging.files import Image, load_image, save_image

UP = "upscale photo.png -m photo.bundle"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder with a picture of 20x14, a bundle for x1 to x4, and what is in the way."""
    golden = Path(scaleport.__file__).parent / "golden/tile.bundle"
    shutil.copytree(golden, tmp_path / "photo.bundle")
    pixels = np.random.default_rng(5).integers(0, 256, (14, 20, 3), np.uint8)
    save_image(tmp_path / "photo.png", Image(pixels))
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    (tmp_path / "graph.onnx").write_bytes(b"no graph")
    (tmp_path / "empty").mkdir()
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Line, exit code, what is wrong, what to do next.
WRONG = [
    # The verb.
    ("upscal photo.png", 2, "no verb upscal", "did you mean scaleport upscale?"),
    ("UPSCALE photo.png", 2, "no verb UPSCALE", "did you mean scaleport upscale?"),
    ("exprot scaleport-s", 2, "no verb exprot", "did you mean scaleport export?"),
    ("inspct photo.bundle", 2, "no verb inspct", "did you mean scaleport inspect?"),
    ("enlarge photo.png", 2, "no verb enlarge", "did you mean scaleport upscale?"),
    ("run photo.png", 2, "no verb run", "did you mean scaleport upscale?"),
    ("convert weights.pth", 2, "no verb convert", "did you mean scaleport export?"),
    ("quantize scaleport-s", 2, "no verb quantize", "did you mean scaleport calibrate?"),
    ("benchmark photo.bundle", 2, "no verb benchmark", "did you mean scaleport bench?"),
    ("list", 2, "no verb list", "did you mean scaleport models?"),
    ("modles", 2, "no verb modles", "did you mean scaleport models?"),
    ("photo.png -s 2", 2, "photo.png is not a verb", "scaleport upscale photo.png -s 2"),
    ("--quiet photo.png", 2, "photo.png is not a verb", "scaleport upscale photo.png"),
    ("xyzzy", 2, "no verb xyzzy", "the verbs are upscale, "),
    ("--json xyzzy", 2, "no verb xyzzy", "the verbs are upscale, "),
    # Options.
    (f"{UP} -s 2 --scael 3", 2, "No such option: --scael", "--scale"),
    (f"{UP} -s 2 --recursiv", 2, "No such option: --recursiv", "--recursive"),
    (f"{UP} -s 2 -z", 2, "No such option", "see scaleport upscale --help"),
    ("upscale -m photo.bundle -s 2", 2, "Missing argument", "see scaleport upscale --help"),
    (f"{UP} -s", 2, "requires an argument", "see scaleport upscale --help"),
    # Scales and sizes.
    (f"{UP} -s two", 2, "'two'", "a number such as 2.7"),
    (f"{UP} -s 2,3,4", 2, "scale", "pair"),
    (f"{UP} -s 2;3", 2, "'2;3'", "2,3.5"),
    (f"{UP} -s x", 2, "'x'", "x2.7"),
    (f"{UP} -s %", 2, "'%'", "270%"),
    (f"{UP} -s 0", 2, "scale must be", "above 0"),
    (f"{UP} -s -2x", 2, "scale must be", "above 0"),
    (f"{UP} -s 1920x1080", 2, "is a size", "--size 1920x1080"),
    (f"{UP} -s 600%", 2, "outside the range of this model", "upscale twice"),
    (f"{UP} -s 50", 2, "outside the range of this model", "upscale twice"),
    (f"{UP} -s 50%", 2, "outside the range of this model", "use an image editor"),
    (f"{UP} --size 2", 2, "got '2'", "--width 2"),
    (f"{UP} --size 1920", 2, "got '1920'", "--longest 1920"),
    (f"{UP} --size 40:28", 2, "got '40:28'", "--size 1920x1080"),
    (f"{UP} --size 400x280", 2, "400 pixels from 20|280 pixels from 14", "upscale twice"),
    (f"{UP} --fit 10x10", 2, "outside the range of this model", "use an image editor"),
    (f"{UP} --fit 40", 2, "got '40'", "--fit 1920x1080"),
    (f"{UP} --width 0", 2, "--width", "1"),
    (f"{UP} --width wide", 2, "value for '--width'", "see scaleport upscale --help"),
    (f"{UP} -s 2 --width 40", 2, "give either a scale", "--width 1920"),
    (f"{UP} --size 40x28 --longest 40", 2, "--size is the exact", "leave it out"),
    (f"{UP} --fit 40x28 --height 28", 2, "limits both sides", "leave the others out"),
    # Inputs.
    ("upscale phto.png -m photo.bundle -s 2", 2, "no such file", "did you mean photo.png?"),
    ("upscale photo.jpg -m photo.bundle -s 2", 2, "no such file", "did you mean photo.png?"),
    (
        "upscale https://a.b/c.png -m photo.bundle -s 2",
        2,
        "an address",
        "curl -O https://a.b/c.png",
    ),
    ("upscale s3://a/c.png -m photo.bundle -s 2", 2, "s3://a/c.png is an address", "download it"),
    (
        "upscale file:///a/c.png -m photo.bundle -s 2",
        2,
        "is an address",
        "the path alone, /a/c.png",
    ),
    ("upscale empty -m photo.bundle -s 2", 2, "holds no images", ".png"),
    ("upscale '*.tif' -m photo.bundle -s 2", 2, "no image matches *.tif", "*.tif"),
    ("upscale file -m photo.bundle -s 2", 2, "unsupported kind", "supported are PNG"),
    ("upscale clip.mp4 -m photo.bundle -s 2 -o big.png", 2, "a video cannot become", ".mkv"),
    # Outputs.
    (f"{UP} -s 2 -o out.pgn", 2, "suffix .pgn", "did you mean .png?"),
    (f"{UP} -s 2 -o out.jepg", 2, "suffix .jepg", "did you mean .jp"),
    (f"{UP} -s 2 -o out.bmp", 2, "suffix .bmp", "use one of .png"),
    (f"{UP} -s 2 -o out", 2, "it has no suffix", "or in / for a folder"),
    (f"{UP} -s 2 -o file/out.png", 2, "cannot write to file", "file is a file, not a directory"),
    (f"{UP} -s 2 -o https://a.b/c.png", 2, "is an address", "upload it"),
    (f"{UP} -s 2 -o photo.png", 2, "is the input itself", "choose another output"),
    (f"{UP} -s 2 --format jepg", 2, "unknown image format", "did you mean jp"),
    (f"{UP} -s 2 --format psd", 2, "unknown image format", "known: avif"),
    ("upscale photo.png photo.png file -m photo.bundle -s 2 -o a.png", 2, "several", "directory"),
    # The model.
    ("upscale photo.png -m liif-small", 2, "no bundle", "scaleport export liif-small"),
    ("upscale photo.png -m foto.bundle -s 2", 2, "no bundle at", "did you mean photo.bundle?"),
    ("upscale photo.png -m weights.pth -s 2", 4, "not a bundle", "scaleport import weights.pth"),
    ("upscale photo.png -m graph.onnx -s 2", 4, "not a bundle", "give the bundle"),
    ("upscale photo.png -m https://a.b/c -s 2", 2, "is an address", "download it first"),
    ("export scaleport-n", 2, "no checkpoint scaleport-n", "did you mean scaleport-"),
    ("export photo.bundle", 2, "is a directory", "photo.bundle/model.safetensors"),
    ("export scaleport-s --format onxx", 2, "unknown format 'onxx'", "did you mean onnx?"),
    ("export scaleport-s --format torchscript", 2, "unknown format", "known: onnx"),
    ("import wieghts.pth", 2, "no file wieghts.pth", "did you mean weights.pth?"),
    ("import https://a.b/c.pth", 2, "is an address", "curl -O https://a.b/c.pth"),
    ("import weights.pth -o new.pth", 2, "new.pth", ".safetensors"),
    # The backend.
    (f"{UP} -s 2 --backend onnx", 2, "unknown backend 'onnx'", "did you mean onnxruntime?"),
    (f"{UP} -s 2 --backend openvno", 2, "unknown backend", "did you mean openvino?"),
    (f"{UP} -s 2 --backend metal", 2, "unknown backend 'metal'", "known: coreml"),
    (f"{UP} -s 2 --precision fp12", 2, "in fp12", "there are: fp32"),
    (f"{UP} -s 2 --engine ry", 2, "--engine is local or ray", "did you mean ray?"),
    (f"{UP} -s 2 --max-memory lots", 2, "got 'lots'", "1GiB"),
    (f"{UP} -s 2 --bits 12", 2, "got 12", "8, 16, 32"),
]

# The same for lines whose answers name the models of the package.
OF_MODELS = [
    (f"{UP} -s 6", 2, "outside the range of this model, 1 to 4", "-m scaleport-any"),
    (f"{UP} --size 120x84", 2, "84 pixels from 14", "-m scaleport-any"),
    ("upscale photo.png -m scaleport-x", 2, "no bundle at scaleport-x", "did you mean scaleport-"),
    ("upscale photo.png -m nothing", 2, "no bundle at nothing", "by name: scaleport-photo, "),
    ("upscale photo.png -m scaleport-s -s 5", 2, "outside the range", "-m scaleport-any"),
    ("upscale photo.png -s 9", 2, "outside the range of this model, 1 to 8", "upscale twice"),
]


def test_the_table_is_large_enough():
    assert len(WRONG) >= 60
    assert len({line for line, *_ in [*WRONG, *OF_MODELS]}) == len(WRONG) + len(OF_MODELS)


@pytest.mark.parametrize(
    ("line", "code", "wrong", "step"), OF_MODELS, ids=[row[0] for row in OF_MODELS]
)
def test_models_that_can_are_named(run, place, package_models, line, code, wrong, step):
    test_message_code_and_next_step(run, place, line, code, wrong, step)


@pytest.mark.parametrize(("line", "code", "wrong", "step"), WRONG, ids=[row[0] for row in WRONG])
def test_message_code_and_next_step(run, place, line, code, wrong, step):
    before = snapshot(place)
    ran = run(line)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert "internal error" not in ran.err
    assert any(word in ran.err for word in wrong.split("|")), ran.err
    assert step in ran.err, ran.err
    assert snapshot(place) == before


def snapshot(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}, len([*folder.rglob("*")])


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [
        ("-s x2", "photo_x2.png", (28, 40)),
        ("-s 2x", "photo_x2.png", (28, 40)),
        ("-s X1.5", "photo_x1.5.png", (21, 30)),
        ("-s ×3", "photo_x3.png", (42, 60)),
        ("-s 200%", "photo_x2.png", (28, 40)),
        ("-s 110%", "photo_x1.1.png", (15, 22)),
        ("-s x2,x3", "photo_x2x3.png", (28, 60)),
        ("--size 41×33", "photo_41x33.png", (33, 41)),
        ("--width 50", "photo_w50.png", (35, 50)),
        ("--height 50", "photo_h50.png", (50, 71)),
        ("--longest 50", "photo_longest50.png", (35, 50)),
        ("--fit 50x30", "photo_fit50x30.png", (30, 43)),
        ("--fit 50*36", "photo_fit50x36.png", (35, 50)),
        ("--width 50 --height 30", "photo_fit50x30.png", (30, 43)),
    ],
)
def test_scales_and_sizes_as_people_write_them(run, place, options, name, size):
    ran = run(f"{UP} {options} --backend onnxruntime")
    assert ran.code == 0, ran.err
    assert ran.err == ("" if "--size" not in options else ran.err)
    assert load_image(name).pixels.shape[:2] == size


@pytest.mark.parametrize(
    ("size", "stretched"),
    [("40x28", False), ("41x28", False), ("50x35", False), ("50x20", True), ("41x33", True)],
)
def test_an_exact_size_says_when_it_stretches(run, place, size, stretched):
    ran = run(f"{UP} --size {size} --backend onnxruntime")
    said = f"note: photo.png: stretched: {size} is not the shape of 20x14; --fit {size} keeps it\n"
    assert (ran.code, ran.err) == (0, said if stretched else "")


def test_flags_stand_before_or_after_the_verb(run, place):
    line = f"{UP} -s 2 --backend onnxruntime"
    assert run(f"-q {line}") == run(f"{line} -q") == (0, "", "")
    before, after = run(f"--json {line}"), run(f"{line} --json")
    assert before.json["images"][0]["output"] == after.json["images"][0]["output"]
    assert run(f"-v --quiet {line}").out == ""


def test_help_as_a_verb(run):
    assert run("help") == run("--help")
    assert run("help upscale") == run("upscale --help")
    assert run("help upscale").code == 0


def test_a_folder_of_pictures_is_fitted_one_by_one(run, place):
    save_image("tall.png", Image(np.zeros((20, 10, 3), np.uint8)))
    assert run("upscale . -m photo.bundle --longest 40 -o out --backend onnxruntime").code == 0
    assert load_image("out/photo_longest40.png").pixels.shape == (28, 40, 3)
    assert load_image("out/tall_longest40.png").pixels.shape == (40, 20, 3)


def test_the_package_runs_as_a_module(place):
    ran = subprocess.run(
        [sys.executable, "-m", "scaleport", "help"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Usage: scaleport ")
