"""``scaleport upscale``: images in, larger images out."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from scaleport.cli.completing import complete_backend, complete_model, complete_precision
from scaleport.cli.options import (
    Device,
    InferencePrecision,
    Threads,
    bytes_of,
    fit_of,
    scale_of,
    size_of,
)
from scaleport.cli.output import JsonFlag, QuietFlag, VerboseFlag
from scaleport.cli.strangers import Allow, VerifyKey
from scaleport.cli.upscaled import Streams, complain, left_out_lines, report_run, say_outcome
from scaleport.errors import PartialError, UsageError, did_you_mean
from scaleport.ready import (
    DEFAULT,
    DEFAULT_BEYOND,
    DEFAULT_SCALE,
    default_model,
    purposes,
)

if TYPE_CHECKING:
    from scaleport.batch.work import Outcome
    from scaleport.runtimes.scales import Fit

ENGINES = ("local", "ray")

EXAMPLES = f"""\b
Which model:
{purposes()}

\b
Examples:
  scaleport upscale photo.jpg
  scaleport upscale drawing.png -m scaleport-s -s 2.7
  scaleport upscale scans/ -s 2,3.5 -o larger/ --recursive
  scaleport upscale 'scans/*.tif' -m scaleport-m -s 4 -o larger/ --resume
  scaleport upscale map.png -m scaleport-any -s 6.5
  scaleport upscale clip.mp4 -s 2 --crf 16
  scaleport upscale - -s 2 < photo.png > larger.png
  scaleport upscale photo.png -m my.bundle --fit 1920x1080 -o wall.webp --backend openvino
"""


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Images, folders of images, or patterns such as 'scans/*.tif'; - reads stdin.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|BUNDLE",
            autocompletion=complete_model,
            help="A model by name, see scaleport models, or a bundle. "
            f"[default: {DEFAULT}; {DEFAULT_BEYOND} for larger scales]",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            "-s",
            metavar="S|SY,SX",
            help="Scale: 2.7, x2.7 or 270%, or 2,3.5 (vertical, horizontal). [default: 2]",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Exactly this output size in pixels, instead of a scale; may stretch.",
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Largest size of the same shape that fits into this box."),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Output width in pixels; the height follows."),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Output height in pixels; the width follows."),
    ] = None,
    longest: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Pixels of the output's longer side.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="Output file or directory; missing directories are made; - is stdout. "
            "[default: NAME_x2.7.png beside the input]",
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_backend,
            help="onnxruntime, openvino, tensorrt, coreml, executorch, torch or auto.",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_precision,
            help="fp32, fp16 or int8. [default: the first in the bundle]",
        ),
    ] = "",
    threads: Threads = 0,
    inference_precision: InferencePrecision = "",
    tile: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Largest tile in input pixels; 0 never tiles. [default: what suits the device, "
            "256 on a processor]",
        ),
    ] = None,
    max_memory: Annotated[
        str,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            help="Memory limit of the process, e.g. 1GiB; chooses the tile, at most --tile.",
        ),
    ] = "",
    device: Device = "",
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
            metavar="N",
            show_default=False,
            help="Bits per channel: 8, 16, or 32 for floats. [default: the input's]",
        ),
    ] = 0,
    quality: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="Quality of JPEG, AVIF and lossy WebP.")
    ] = 95,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Write WebP and AVIF without loss.")
    ] = False,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local, or ray for many processes or machines.")
    ] = "local",
    address: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address of a Ray cluster. [default: this machine]"),
    ] = "",
    allow: Allow = None,
    verify_key: VerifyKey = None,
    codec: Annotated[
        str, typer.Option(metavar="NAME", help="Video encoder of FFmpeg, e.g. libx265.")
    ] = "libx264",
    crf: Annotated[
        int, typer.Option(min=0, max=51, metavar="N", help="Quality of x264 and x265; 0 is best.")
    ] = 18,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Include images in subfolders.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep outputs that are finished, unchanged and of the same settings."
        ),
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Upscale images, folders of images and videos to any scale in the model's range.

    Alpha, colour profile and EXIF are kept. An existing output of the same name is replaced. With
    -o DIR, outputs keep the folder structure of their inputs. If one of several images fails, the
    others are still upscaled; finished ones are recorded beside the outputs for --resume. A video
    has to be named or match a pattern; it keeps its audio and its time stamps.
    """
    streams = Streams(inputs, output, kind)
    out = streams.reporter(as_json, quiet, verbose)
    _check_engine(engine, address)
    from scaleport.batch.run import FilesOptions, FilesRun
    from scaleport.batch.work import Request
    from scaleport.bundle.reader import open_bundle
    from scaleport.imaging.writing import SaveOptions, VideoOptions
    from scaleport.runtimes.upscaler import load
    from scaleport.runtimes.view import TilePolicy

    options = FilesOptions(
        kind=kind,
        bits=_checked_bits(bits),
        image=SaveOptions(quality, lossless),
        video=VideoOptions(codec, crf),
        recursive=recursive,
        resume=resume,
        max_memory=bytes_of("--max-memory", max_memory) if max_memory else 0,
        engine=engine,  # type: ignore[arg-type]
        address=address,
    )
    asked, limits = _wanted(scale, _size(size, fit, width, height, longest))
    Request.of(asked, limits)  # what is wrong with it is said before the model is loaded
    if model is None:
        model = default_model(None if asked is None else max(asked))
    bundle = open_bundle(model, allow=allow or (), verify_key=verify_key)
    upscaler = load(
        bundle,
        backend,
        precision,
        threads,
        device,
        TilePolicy(tile=tile),
        inference_precision=inference_precision,
    )
    work = FilesRun(upscaler, streams.inputs, streams.output, asked, limits, options)
    for _, error in work.plan.failures:
        complain(error, verbose)
    for line in left_out_lines(work.plan.left_out):
        out.note(line)
    start = time.perf_counter()
    with out.progress() as progress:
        stdout = sys.stdout

        def tell(outcome: Outcome) -> None:
            # Our own lines are not what libraries print.
            with contextlib.redirect_stdout(stdout):
                say_outcome(out, outcome)

        with out.libraries():
            report = work.run(tell, progress)
    seconds = time.perf_counter() - start
    report_run(out, bundle.path, upscaler, report, seconds)
    streams.send()
    if report.failures:
        some = report.made + report.kept > 0
        raise typer.Exit(PartialError.exit_code if some else report.failures[0][1].exit_code)


def _check_engine(engine: str, address: str) -> None:
    if engine not in ENGINES:
        raise UsageError(
            f"--engine is {' or '.join(ENGINES)}, got {engine!r}{did_you_mean(engine, ENGINES)}"
        )
    if address and engine != "ray":
        raise UsageError("--address is that of a Ray cluster; add --engine ray")


def _checked_bits(bits: int) -> int:
    from scaleport.runtimes.file import BITS

    if bits and bits not in BITS:
        raise UsageError(f"--bits must be {', '.join(map(str, BITS))}, got {bits}")
    return bits


def _wanted(
    scale: str | None, size: tuple[int, int] | Fit | None
) -> tuple[tuple[float, float] | None, tuple[int, int] | Fit | None]:
    """Scale and size; the default scale where neither is given."""
    if scale is None:
        return (None if size is not None else (DEFAULT_SCALE, DEFAULT_SCALE)), size
    return scale_of(scale), size


def _size(
    size: str | None, fit: str | None, width: int | None, height: int | None, longest: int | None
) -> tuple[int, int] | Fit | None:
    limits = fit_of(width, height, longest, fit)
    if size is None:
        return limits
    if limits is not None:
        raise UsageError(
            "--size is the exact output size; leave it out, or --fit, --width, --height and "
            "--longest, which keep the shape"
        )
    return size_of(size)
