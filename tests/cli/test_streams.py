"""Images through pipes, and streams that are closed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from scaleport.imaging.files import load_image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses POSIX shells and pipes")

UPSCALE = f"{sys.executable} -m scaleport.cli.main upscale"


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(line, shell=True, capture_output=True, timeout=300, check=False)


def test_from_stdin_to_stdout(run, folder) -> None:
    assert run("upscale photo.png -m photo.bundle -s 2 -o right.png").code == 0
    ran = shell(f"cat photo.png | {UPSCALE} - -m photo.bundle -s 2")
    assert ran.returncode == 0
    (folder / "piped.png").write_bytes(ran.stdout)
    right = load_image("right.png").pixels
    np.testing.assert_array_equal(load_image("piped.png").pixels, right)
    assert b"20x14 -> 40x28" in ran.stderr
    ran = shell(f"{UPSCALE} /dev/stdin -m photo.bundle -s 2 -o file.png < photo.png")
    assert ran.returncode == 0
    np.testing.assert_array_equal(load_image("file.png").pixels, right)


def test_stdout_that_is_closed(folder) -> None:
    ran = shell(f"{UPSCALE} photo.png -m photo.bundle -s 2 -o out.png >&-")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert load_image("out.png").pixels.shape == (28, 40, 3)
    ran = shell(f"{UPSCALE} photo.png -m photo.bundle -s 2 -o - 2>err | head -c 9 > /dev/null")
    assert b"Traceback" not in (folder / "err").read_bytes()


def test_what_streams_cannot_be(run, folder) -> None:
    ran = run("upscale - photo.png -m photo.bundle -s 2")
    assert (ran.code, "leave out other inputs" in ran.err) == (2, True)
    ran = run("upscale photo.png -m photo.bundle -s 2 -o - --json")
    assert (ran.code, "--json" in ran.err) == (2, True)
    ran = shell(f"{UPSCALE} - -m photo.bundle -s 2 -o out.png <&-")
    assert (ran.returncode, b"no image on the standard input" in ran.stderr) == (2, True)
    damaged = shell(f"head -c 99 photo.png | {UPSCALE} - -m photo.bundle -s 2")
    assert damaged.returncode == 2
    assert damaged.stdout == b""
    assert b"damaged" in damaged.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_that_are_no_utf8(folder) -> None:
    (folder / "in").mkdir()
    names = [os.fsdecode(b"caf\xe9.png"), "b[2].png"]
    for name in names:
        shutil.copy("photo.png", folder / "in" / name)
    ran = shell(f"{UPSCALE} in -m photo.bundle -s 2 -o out/ --json")
    assert (ran.returncode, ran.stderr) == (0, b"")
    made = sorted(path.name for path in (folder / "out").glob("*.png"))
    assert made == sorted(name.replace(".png", "_x2.png") for name in names)
    ran = shell(f"{UPSCALE} in -m photo.bundle -s 2 -o out/ --resume")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"2 kept" in ran.stdout
