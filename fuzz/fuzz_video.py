"""Video files: the input is a file, whatever it claims to be, upscaled frame by frame.

Frames are doubled and not run through a network: what is looked for is in reading, in the copies
of streams and tags, and in writing. At most 12 frames are decoded, and none beyond 256 kilopixels.
"""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["scaleport"]):
    from scaleport.bundle.manifest import ScaleRange
    from scaleport.imaging.writing import VideoOptions
    from scaleport.runtimes.video import VideoUpscale

from types import SimpleNamespace
from typing import Any

import av
import numpy as np
from harness import run, scratch

FOLDER = scratch()
FILE = FOLDER / "clip.mp4"
TARGETS = (FOLDER / "big.mkv", FOLDER / "big.mp4")
MOST_FRAMES, MOST_PIXELS = 12, 1 << 18
UPSCALER: Any = SimpleNamespace(
    manifest=SimpleNamespace(scale=ScaleRange(min=1.0, max=4.0)),
    policy=SimpleNamespace(tile=0),
    stages=None,
)


class Enough(Exception):
    """The frames that were wanted are done."""


class Doubled(VideoUpscale):
    """The same with a network that repeats pixels."""

    def _large(self, pixels: Any) -> Any:
        height, width = self._result.output_size
        return np.ascontiguousarray(pixels.repeat(2, 0).repeat(2, 1)[:height, :width])


def stop(done: int, total: int) -> None:
    """Progress that ends a long film."""
    if done > total or done < 0:
        raise AssertionError(f"frame {done} of {total}")
    if done >= MOST_FRAMES:
        raise Enough


def target(data: bytes) -> None:
    """Upscale the film and compare the number of frames that arrive with those that were made."""
    FILE.write_bytes(data)
    goal = TARGETS[len(data) % 2]
    work = Doubled(UPSCALER, FILE, goal, (2.0, 2.0), options=VideoOptions("libx264"))
    try:
        height, width = work._result.output_size
        if height * width > 4 * MOST_PIXELS:
            return
        try:
            work.render(stop)
        except Enough:
            return
        result = work.finish()
        if any("\n" in note or len(note) > 2000 for note in result.notes):
            raise AssertionError(f"a note that is not one line: {result.notes!r}")
        with av.open(str(goal)) as made:
            sizes = {(f.height, f.width) for f in made.decode(made.streams.video[0])}
        if sizes != {result.output_size}:
            raise AssertionError(f"made {sizes} instead of {result.output_size}")
    except UnicodeError as error:
        raise AssertionError(f"text that is not UTF-8: {error!r}") from error
    finally:
        work.discard()
        goal.unlink(missing_ok=True)


if __name__ == "__main__":
    run(target)
