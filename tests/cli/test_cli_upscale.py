from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

import scaleport
from scaleport.imaging.files import Image, Metadata, load_image, save_image


def size(path: Path) -> tuple[int, int]:
    with PIL.Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ("-s 2.7", "photo_x2.7.png", (54, 38)),
        ("-s 2,3.5", "photo_x2x3.5.png", (70, 28)),
        ("--size 41x29", "photo_41x29.png", (41, 29)),
        ("-s 1 -o same.jpg", "same.jpg", (20, 14)),
        ("-s 2 -o made/", "made/photo_x2.png", (40, 28)),
        ("-s 2 -o new/sub/o.png", "new/sub/o.png", (40, 28)),
        ("-s 2 -o new/sub/", "new/sub/photo_x2.png", (40, 28)),
    ],
)
def test_output_has_the_size_and_name_asked_for(run, folder, options, name, expected) -> None:
    ran = run(f"upscale photo.png -m photo.bundle {options}")
    assert (ran.code, ran.err) == (0, "")
    assert f"{name}: 20x14 -> {expected[0]}x{expected[1]} in " in ran.out
    assert size(folder / name) == expected


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_pixels_are_those_of_the_library(run, folder, backend: str) -> None:
    ran = run(f"upscale photo.png -m photo.bundle -s 2.7 --backend {backend} -o out.png --json")
    assert (ran.code, ran.json["backend"]) == (0, backend)
    up = scaleport.load("photo.bundle", backend)
    expected = up(load_image("photo.png").pixels, 2.7)
    np.testing.assert_array_equal(load_image("out.png").pixels, expected)


def test_tiles_do_not_show(run, folder) -> None:
    run("upscale photo.png -m photo.bundle -s 2.7 --tile 0 -o whole.png")
    run("upscale photo.png -m photo.bundle -s 2.7 --tile 8 -o tiled.png")
    whole, tiled = (load_image(name).pixels.astype(int) for name in ("whole.png", "tiled.png"))
    assert np.abs(whole - tiled).max() <= 1


def test_alpha_and_profile_are_kept(run, folder) -> None:
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.zeros((9, 8, 4), np.uint8)
    pixels[:, 4:] = 255
    save_image("alpha.png", Image(pixels, Metadata({"icc-profile-data": profile})))
    assert run("upscale alpha.png -m photo.bundle -s 2 -o out.png").code == 0
    made = load_image("out.png")
    assert made.metadata.icc == profile
    alpha = made.pixels[..., 3].astype(int)
    assert alpha.shape == (18, 16)
    assert alpha[:, 8:].mean() > alpha[:, :8].mean()


def test_json_describes_every_image(run, folder) -> None:
    ran = run("upscale photo.png -m photo.bundle -s 2.7 --backend onnxruntime --json")
    assert (ran.code, ran.err) == (0, "")
    (image,) = ran.json["images"]
    assert image.pop("seconds") >= 0
    assert image == {
        "input": "photo.png",
        "output": "photo_x2.7.png",
        "input_size": {"width": 20, "height": 14},
        "output_size": {"width": 54, "height": 38},
        "notes": [],
        "tile": 256,
        "kept": False,
    }
    assert ran.json["device"] == "CPUExecutionProvider"
    assert (ran.json["precision"], ran.json["failures"]) == ("fp32", [])


def test_quiet_prints_nothing(run, folder) -> None:
    assert run("upscale photo.png -m photo.bundle -s 2 -q") == (0, "", "")
    assert (folder / "photo_x2.png").exists()


def test_fp16_graphs_run_when_asked_for(run, folder) -> None:
    ran = run("upscale photo.png -m photo.bundle -s 2 --precision fp16 --json")
    assert ran.json["precision"] == "fp16"


def test_folder_stands_for_its_images_but_not_for_earlier_outputs(run, folder) -> None:
    shutil.copy("photo.png", "second.png")
    Path("readme.txt").write_text("no image")
    for scale in (2, 3, 3):
        ran = run(f"upscale . -m photo.bundle -s {scale} --json")
        assert [image["input"] for image in ran.json["images"]] == ["photo.png", "second.png"]
    assert len(ran.json["left_out"]) == 4
    assert ran.err == (
        "note: left out photo_x2.png and 3 more: an earlier run made it; "
        "name the file itself to upscale it\n"
    )
    shutil.copy("photo.png", "photo.webp")
    ran = run("upscale . -m photo.bundle -s 3 --json")
    assert (ran.code, len(ran.json["images"])) == (0, 3)
    assert Path("photo_webp_x3.png").exists()


def test_one_bad_image_of_several_does_not_stop_the_others(run, folder) -> None:
    Path("bad.png").write_text("no image")
    ran = run("upscale bad.png photo.png -m photo.bundle -s 2 -o out --json")
    assert ran.code == 6
    assert [image["output"] for image in ran.json["images"]] == ["out/photo_x2.png"]
    assert [failure["input"] for failure in ran.json["failures"]] == ["bad.png"]
    assert ran.err.splitlines() == [f"error: {ran.json['failures'][0]['error']}"]


def test_an_existing_output_is_replaced(run, folder) -> None:
    Path("out.png").write_text("old")
    Path("out.png").chmod(0o600)
    assert run("upscale photo.png -m photo.bundle -s 2 -o out.png").code == 0
    assert size(folder / "out.png") == (40, 28)


def test_two_inputs_of_one_name_do_not_replace_each_other(run, folder) -> None:
    Path("other").mkdir()
    shutil.copy("photo.png", "other/photo.png")
    ran = run("upscale photo.png other/photo.png -m photo.bundle -s 2 -o out -q")
    assert ran.code == 6
    assert ran.err == (
        "error: other/photo.png: out/photo_x2.png is already the output of photo.png; "
        "name this one alone, with -o FILE\n"
    )
    assert [path.name for path in Path("out").iterdir()] == ["photo_x2.png"]
