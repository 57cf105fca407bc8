"""Options that several verbs take, and what is made of their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scaleport.cli.completing import complete_backend, complete_checkpoint
from scaleport.cli.parse import size_of, size_range_of, words_of
from scaleport.errors import OutputError, UsageError
from scaleport.export.formats import check_formats
from scaleport.paths import holds
from scaleport.shipped import checkpoint_name

Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT|NAME",
        autocompletion=complete_checkpoint,
        help="A checkpoint file, or the name of a shipped one.",
    ),
]
BundleOutput = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="BUNDLE",
        help="The bundle to write. [default: NAME.bundle here]",
    ),
]
OverwriteBundle = Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")]
License = Annotated[
    str,
    typer.Option(
        "--license",
        metavar="NAME",
        help="Licence of the weights, e.g. CC-BY-4.0. [default: what the checkpoint says]",
    ),
]
Height = Annotated[
    str | None,
    typer.Option(
        "--height", metavar="MIN:OPT:MAX", help="Input heights that engines are built for."
    ),
]
Width = Annotated[
    str | None,
    typer.Option("--width", metavar="MIN:OPT:MAX", help="Input widths that engines are built for."),
]
Static = Annotated[
    str | None,
    typer.Option(
        "--static",
        metavar="WIDTHxHEIGHT",
        help="Write graphs of one fixed shape, such as 256x256, for NPUs and other compilers that "
        "take no dynamic dimension. Pictures of any size are upscaled in tiles. More sizes after a "
        "comma are for Core ML alone (enumerated shapes).",
    ),
]
StaticScale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        metavar="S",
        help="With --static: the native scale to write, or of a network of any scale the size of "
        "the block that one call renders. [default: all native scales, or 2]",
        show_default=False,
    ),
]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        metavar="LIST",
        autocompletion=complete_backend,
        help="Backends to run, which must be usable: comma-separated or repeated. "
        "[default: all that can run here]",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Device, by the backend's own name, e.g. GPU or cuda:1.",
    ),
]
InferencePrecision = Annotated[
    str,
    typer.Option(
        "--inference-precision",
        metavar="NAME",
        help="Compute in fp32, tf32, bf16 or fp16, where the backend can. "
        "[default: as the graphs say]",
        show_default=False,
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads", metavar="N", min=0, help="Processor threads; 0 lets the backend decide."
    ),
]


def bundle_target(output: Path | None, checkpoint: Path, overwrite: bool) -> Path:
    """Where the bundle of a checkpoint is written: as asked, or ``NAME.bundle`` here.

    Raises:
        OutputError: if it exists and may not be replaced.
    """
    target = output or Path(f"{checkpoint_name(checkpoint)}.bundle")
    refuse_existing(target, overwrite)
    return target


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Keep what is there, unless it may be replaced.

    Raises:
        OutputError: if the target exists.
    """
    if not overwrite and holds(target.exists):
        raise OutputError(f"{target} exists; choose another name with -o, or add --overwrite")


def formats_of(values: list[str]) -> tuple[str, ...]:
    """Formats by name, each once; raises UsageError of one that is unknown."""
    names = words_of(values)
    check_formats(names)
    return names


def static_of(text: str | None, scale: float | None, ranges: bool) -> dict[str, Any]:
    """What was given of ``--static`` and ``--scale``, as an option of the export.

    Raises:
        UsageError: if one contradicts another, or is no size.
    """
    if text is None:
        if scale is not None:
            raise UsageError("--scale needs --static WIDTHxHEIGHT; other graphs take any scale")
        return {}
    if ranges:
        raise UsageError("--static gives height and width: leave out --height and --width")
    from scaleport.export.static import StaticShape

    words = words_of([text])
    sizes = [size_of(f"{w}x{w}" if w.isdecimal() else w, "--static") for w in words or (text,)]
    return {"static": StaticShape(*sizes[0], scale, tuple(sizes[1:]))}


def sizes_of(height: str | None, width: str | None) -> dict[str, Any]:
    """What was given of ``--height`` and ``--width``, as size ranges by name; raises UsageError."""
    given = {"height": height, "width": width}
    return {
        name: size_range_of(f"--{name}", text) for name, text in given.items() if text is not None
    }
