"""Options that several verbs take, and what is made of their values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from scaleport.cli.completing import complete_backend, complete_checkpoint
from scaleport.errors import OutputError, ScaleError, UsageError
from scaleport.export.formats import check_formats
from scaleport.paths import holds
from scaleport.shipped import checkpoint_name

if TYPE_CHECKING:
    from scaleport.bundle.manifest import SizeRange
    from scaleport.runtimes.scales import Fit


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
MAX_SIDE = 1 << 24
_SIZE: Final = re.compile(r"0*([1-9][0-9]{0,8})\s*[xX\u00d7*]\s*0*([1-9][0-9]{0,8})", re.ASCII)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


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


def scale_of(text: str) -> tuple[float, float]:
    """``2.7``, ``x2.7``, ``2.7x`` or ``270%``; or ``2,3.5``, the vertical and horizontal scale.

    Raises:
        ScaleError: if it is none of these, or not finite and above 0.
    """
    from scaleport.grid import parse_scale

    try:
        values = [_factor(part) for part in text.split(",")]
    except ValueError:
        if _SIZE.fullmatch(text.strip()):
            raise ScaleError(f"{text} is a size: use --size {text}, or --fit {text}") from None
        raise ScaleError(
            "a scale is a number such as 2.7 (also x2.7 or 270%), or two (vertical, horizontal) "
            f"such as 2,3.5; got {text!r}"
        ) from None
    return parse_scale(values if len(values) > 1 else values[0])


def _factor(text: str) -> float:
    """One scale; ValueError if it is none."""
    word = text.strip().lower().replace("\N{MULTIPLICATION SIGN}", "x")
    if word.endswith("%"):
        # Through decimal text: 110 / 100 is 1.1, where 110 * 0.01 is not.
        return float(Fraction(word.removesuffix("%").strip()) / 100)
    if word.startswith("x") or word.endswith("x"):
        word = word.removeprefix("x") if word.startswith("x") else word.removesuffix("x")
    return float(word)


def size_of(text: str, option: str = "--size") -> tuple[int, int]:
    """``1920x1080``, width x height, as (height, width).

    Raises:
        ScaleError: if it is not that.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        hint = ""
        if re.fullmatch(r"[0-9]{1,9}", text.strip()):
            side = text.strip()
            hint = f"; --width {side}, --height {side} or --longest {side} gives one side"
        raise ScaleError(
            f"a size is WIDTHxHEIGHT in pixels such as {option} 1920x1080; got {text!r}{hint}"
        )
    return int(match[2]), int(match[1])


def fit_of(
    width: int | None, height: int | None, longest: int | None, box: str | None
) -> Fit | None:
    """The limits that were given as options; None if there are none.

    Raises:
        ScaleError: if a box is given beside a side, or a limit is no size.
    """
    from scaleport.runtimes.scales import Fit

    sides = [n for n in (width, height, longest) if n is not None]
    if box is not None:
        if sides:
            raise ScaleError("--fit WIDTHxHEIGHT limits both sides already; leave the others out")
        tall, wide = size_of(box, "--fit")
        return Fit(width=wide, height=tall)
    return Fit(width or 0, height or 0, longest or 0) if sides else None


def size_range_of(option: str, text: str) -> SizeRange:
    """``64:256:1024``, the smallest, usual and largest size; one number allows only that size.

    Raises:
        UsageError: if it is not that.
    """
    from scaleport.bundle.manifest import SizeRange

    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        raise UsageError(
            f"{option} is MIN:OPT:MAX in pixels such as 64:256:1024, or one number; got {text!r}"
        )
    low, usual, high = (int(part) for part in (parts if len(parts) == 3 else parts * 3))
    if not 1 <= low <= usual <= high <= MAX_SIDE:
        raise UsageError(f"{option} must be 1 <= MIN <= OPT <= MAX <= {MAX_SIDE}; got {text!r}")
    return SizeRange(min=low, opt=usual, max=high)


def words_of(values: Iterable[str]) -> tuple[str, ...]:
    """The values of an option that is repeated, comma-separated or both, each once, in order."""
    words = (word.strip() for value in values for word in value.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def whole_numbers_of(option: str, values: Iterable[str]) -> tuple[int, ...]:
    """The same for whole numbers.

    Raises:
        UsageError: if one is not a whole number.
    """
    words = words_of(values)
    for word in words:
        if not re.fullmatch(r"[0-9]{1,9}", word):
            raise UsageError(f"{option} takes whole numbers such as 2,3,4; got {word!r}")
    return tuple(int(word) for word in words)


def decibels_of(text: str) -> float:
    """``0.1dB`` or ``0.1``.

    Raises:
        UsageError: if it is not a number above 0.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE]-?[0-9]+)?)\s*(?:dB)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"a loss is a number of decibels above 0 such as 0.1dB; got {text!r}")
    return float(match[1])


def bytes_of(option: str, text: str) -> int:
    """``1GiB``, ``800MB`` or ``2G``: bytes.

    Raises:
        UsageError: if it is not that, or nothing.
    """
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(i?b)?\s*", text.lower())
    if match is None or (match[3] == "ib" and not match[2]):
        raise UsageError(f"{option} is a size such as 1GiB or 800MB; got {text!r}")
    count = int(float(match[1]) * _UNITS[match[2] + ("b" if match[2] and match[3] == "b" else "")])
    if count < 1:
        raise UsageError(f"{option} must be above 0; got {text!r}")
    return count
