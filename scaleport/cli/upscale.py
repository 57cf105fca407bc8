"""``scaleport upscale``: images in, larger images out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaleport.cli.output import Advance, JsonFlag, Output, QuietFlag, VerboseFlag, error_line, put
from scaleport.cli.parse import scale_of, size_of
from scaleport.cli.strangers import Allow, VerifyKey
from scaleport.errors import (
    ArtifactError,
    OutOfMemoryError,
    OutputError,
    ScaleError,
    ScaleportError,
    UsageError,
)

if TYPE_CHECKING:
    from scaleport.cli.targets import Job
    from scaleport.imaging.writing import SaveOptions
    from scaleport.runtimes.upscaler import Upscaler

EXAMPLES = """\b
Examples:
  scaleport upscale photo.png -m photo.bundle -s 2.7
  scaleport upscale scans/ -m photo.bundle -s 2,3.5 -o larger/
  scaleport upscale photo.png -m photo.bundle --size 1920x1080 -o wall.webp --backend openvino
"""


@dataclass(frozen=True)
class Request:
    """What was asked for: a scale (y, x), or an output size (height, width)."""

    scale: tuple[float, float] | None
    size: tuple[int, int] | None
    bits: int
    options: SaveOptions

    @property
    def tag(self) -> str:
        """What is appended to the names of outputs."""
        if self.size is not None:
            return f"_{self.size[1]}x{self.size[0]}"
        assert self.scale is not None
        shown = dict.fromkeys(f"x{value:g}" for value in self.scale)
        return "_" + "".join(shown)


def upscale(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Images, or folders of images.")
    ],
    bundle: Annotated[Path, typer.Option("--model", "-m", metavar="BUNDLE", help="The bundle.")],
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale", "-s", metavar="S|SY,SX", help="Scale: 2.7, or 2,3.5 (vertical, horizontal)."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Output size in pixels, instead of a scale.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="Output file or directory. [default: NAME_x2.7.png beside the input]",
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="onnxruntime, openvino, tensorrt, coreml, torch or auto."
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(metavar="NAME", help="fp32, fp16 or int8. [default: the first in the bundle]"),
    ] = "",
    threads: Annotated[
        int, typer.Option(min=0, metavar="N", help="Processor threads; 0 leaves it to the backend.")
    ] = 0,
    tile: Annotated[
        int, typer.Option(min=0, metavar="N", help="Largest tile in input pixels; 0 never tiles.")
    ] = 256,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The backend's own name of a device, e.g. GPU or cuda:1."
        ),
    ] = "",
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="png, jpg, webp, tiff or avif, for outputs that -o does not name. [default: png]",
        ),
    ] = "",
    bits: Annotated[
        int,
        typer.Option(
            metavar="N", help="Bits per channel: 8, 16, or 32 for floats. [default: the input's]"
        ),
    ] = 0,
    quality: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="Of JPEG, AVIF and lossy WebP.")
    ] = 95,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Write WebP and AVIF without loss.")
    ] = False,
    allow: Allow = None,
    verify_key: VerifyKey = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Upscale images by any scale that the model allows.

    Alpha, colour profile and EXIF are kept. A folder stands for the images in it. Of several
    images, one that fails is reported and the others go on.
    """
    out = Output(as_json, quiet, verbose)
    if (scale is None) == (size is None):
        raise ScaleError("give either a scale (-s 2.7) or a size (--size 1920x1080)")
    from scaleport.cli.targets import plan
    from scaleport.imaging.writing import SaveOptions
    from scaleport.runtimes.file import BITS

    if bits and bits not in BITS:
        raise UsageError(f"--bits must be {', '.join(map(str, BITS))}, got {bits}")
    request = Request(
        scale_of(scale) if scale is not None else None,
        size_of(size) if size is not None else None,
        bits,
        SaveOptions(quality, lossless),
    )
    from scaleport.runtimes.upscaler import load
    from scaleport.runtimes.view import TilePolicy, checked_grid

    policy = TilePolicy(tile=tile)
    upscaler = load(
        bundle,
        backend,
        precision,
        threads,
        device,
        policy,
        allow=allow or (),
        verify_key=verify_key,
    )
    if request.scale is not None:
        checked_grid(upscaler.manifest, 1, 1, request.scale, None)
    work = plan(inputs, output, request.tag, kind)
    failures: list[tuple[Path, ScaleportError]] = []
    for source, error in work.failures:
        _failed(failures, source, error)
    done = []
    with out.progress(len(work.jobs)) as advance:
        for number, job in enumerate(work.jobs):
            try:
                with out.libraries():
                    made = _upscale(upscaler, job, request, number, advance)
            except ArtifactError:
                raise  # the bundle is damaged: no other image can fare better
            except ScaleportError as error:
                _failed(failures, job.source, error)
                continue
            except MemoryError:
                _failed(
                    failures,
                    job.source,
                    OutOfMemoryError(f"{job.source}: out of memory; try --tile {tile // 2 or 128}"),
                )
                continue
            done.append(made)
            for note in made["notes"]:
                out.note(f"{job.source}: {note}")
            out.say(_line(made))
    if done:
        out.say(f"{upscaler.backend} on {upscaler.device}, {upscaler.precision}")
    out.result(
        {
            "bundle": bundle,
            "model": upscaler.manifest.name,
            "backend": upscaler.backend,
            "device": upscaler.device if done else None,
            "precision": upscaler.precision,
            "images": done,
            "failures": [
                {"input": path, "error": str(error), "exit_code": error.exit_code}
                for path, error in failures
            ],
        }
    )
    if failures:
        raise typer.Exit(failures[0][1].exit_code)


def _upscale(
    upscaler: Upscaler, job: Job, request: Request, number: int, advance: Advance
) -> dict[str, Any]:
    from scaleport.runtimes.file import upscale_file

    advance(number, str(job.source))
    start = time.perf_counter()
    try:
        job.target.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {job.target}: {error.strerror or error}") from error
    try:
        made = upscale_file(
            upscaler,
            job.source,
            job.target,
            request.scale,
            request.size,
            request.bits,
            request.options,
            progress=lambda some, all_: advance(number + some / all_, str(job.source)),
        )
    except ScaleError as error:
        raise ScaleError(f"{job.source}: {error}") from error
    return {
        "input": job.source,
        "output": job.target,
        "input_size": _size(made.input_size),
        "output_size": _size(made.output_size),
        "notes": made.notes,
        "tile": made.tile,
        "seconds": round(time.perf_counter() - start, 3),
    }


def _size(shape: tuple[int, ...]) -> dict[str, int]:
    return {"width": shape[1], "height": shape[0]}


def _line(made: dict[str, Any]) -> str:
    sizes = [
        f"{size['width']}x{size['height']}" for size in (made["input_size"], made["output_size"])
    ]
    return f"{made['output']}: {sizes[0]} -> {sizes[1]} in {made['seconds']:.2f} s"


def _failed(
    failures: list[tuple[Path, ScaleportError]], source: Path, error: ScaleportError
) -> None:
    failures.append((source, error))
    put(error_line(str(error)), err=True)
