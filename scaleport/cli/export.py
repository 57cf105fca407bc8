"""``scaleport export``: from a checkpoint to a bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaleport.cli.completing import complete_format, complete_precision
from scaleport.cli.options import (
    BundleOutput,
    Checkpoint,
    Height,
    License,
    OverwriteBundle,
    Static,
    StaticScale,
    Width,
    bundle_target,
    formats_of,
    sizes_of,
    static_of,
    whole_numbers_of,
    words_of,
)
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag, size_text
from scaleport.errors import UsageError
from scaleport.extras import needs
from scaleport.shipped import find_checkpoint

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Manifest

EXAMPLES = """\b
Examples:
  scaleport export scaleport-s
  scaleport export my.safetensors -o my.bundle --format onnx,openvino --precision fp32
  scaleport export my.safetensors --freeze-scale 2,4 --height 64:256:1024 --width 64:256:1024
  scaleport export scaleport-any --static 256x256 --scale 2
"""


def export(
    checkpoint: Checkpoint,
    output: BundleOutput = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="LIST",
            autocompletion=complete_format,
            help="onnx, openvino, tensorrt, coreml: comma-separated or repeated; onnx is always "
            "written. [default: all]",
        ),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            metavar="LIST",
            autocompletion=complete_precision,
            help="fp32, fp16. [default: both]",
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            "--freeze-scale",
            metavar="LIST",
            help="Native scales that get a plain convolution graph. [default: all]",
        ),
    ] = None,
    height: Height = None,
    width: Width = None,
    static: Static = None,
    scale: StaticScale = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-float32",
            metavar="LIST",
            help="Modules that fp16 graphs compute in float32, such as encoder.tail.",
        ),
    ] = None,
    license: License = "",
    overwrite: OverwriteBundle = False,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Make every graph again, and keep no copy in the cache."),
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Write a checkpoint as a bundle: graphs for every runtime, with a manifest.

    A format whose tools are not installed is skipped, and the bundle says why. A copy is kept in
    the user's cache folder, up to 2 GiB of them: the same export is there in a moment next time,
    and "-m NAME" finds it from everywhere. SCALEPORT_CACHE names another folder.
    """
    out = Output(as_json, quiet, verbose)
    source = find_checkpoint(checkpoint)
    chosen = _chosen(formats, precisions, freeze, height, width)
    chosen |= static_of(static, scale, bool(height or width))
    target = bundle_target(output, source, overwrite)
    with needs("export", "export"):
        from scaleport.export.exporter import export as write
        from scaleport.export.plan import ExportOptions

    kept = words_of(keep) if keep is not None else ()
    options = ExportOptions(**chosen, overwrite=overwrite, keep_float32=kept, license=license)
    start = time.perf_counter()
    with out.progress() as progress, out.libraries():
        manifest = write(source, target, options, progress, not no_cache).manifest
    seconds = time.perf_counter() - start
    out.result(_summary(source, target, manifest, seconds))
    _report(out, target, manifest, seconds)


def _chosen(
    formats: list[str] | None,
    precisions: list[str] | None,
    freeze: list[str] | None,
    height: str | None,
    width: str | None,
) -> dict[str, Any]:
    """The options that were given, checked as far as the network is not needed for it."""
    chosen: dict[str, Any] = {}
    if formats is not None:
        chosen["formats"] = formats_of(formats)
    if precisions is not None:
        chosen["precisions"] = words_of(precisions)
        if "int8" in chosen["precisions"]:
            raise UsageError("int8 needs images to calibrate on: use scaleport calibrate")
    if freeze is not None:
        chosen["freeze_scales"] = whole_numbers_of("--freeze-scale", freeze)
    return {**chosen, **sizes_of(height, width)}


def _summary(source: Path, target: Path, manifest: Manifest, seconds: float) -> dict[str, Any]:
    from scaleport.cli.contents import graph_groups

    return {
        "checkpoint": source,
        "bundle": target,
        "name": manifest.name,
        "parameters": manifest.parameters,
        "graphs": graph_groups(manifest),
        "skipped": manifest.skipped,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "seconds": round(seconds, 3),
    }


def _report(out: Output, target: Path, manifest: Manifest, seconds: float) -> None:
    from scaleport.cli.contents import graph_groups

    total = sum(entry.bytes for entry in manifest.files.values())
    out.say(f"wrote {target}: {size_text(total)} in {seconds:.1f} s")
    rows = [
        (group["format"], group["precision"], size_text(group["bytes"]), " ".join(group["stages"]))
        for group in graph_groups(manifest)
    ]
    out.say_table([("format", "precision", "size", "graphs"), *rows])
    for name, reason in manifest.skipped.items():
        out.say(f"skipped {name}: {reason}")
    shown = min(max(2.7, manifest.scale.min), manifest.scale.max)
    out.say(f"next: scaleport upscale IMAGE -m {target} -s {shown:g}")
    out.say(f"      scaleport validate {target}")
