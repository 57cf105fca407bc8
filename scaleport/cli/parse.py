"""Values of options that are more than one number or word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from scaleport.errors import ScaleError, UsageError

if TYPE_CHECKING:
    from scaleport.bundle.manifest import SizeRange
    from scaleport.runtimes.scales import Fit

MAX_SIDE = 1 << 24


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


_SIZE: Final = re.compile(r"0*([1-9][0-9]{0,8})\s*[xX\u00d7*]\s*0*([1-9][0-9]{0,8})", re.ASCII)


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


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


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
