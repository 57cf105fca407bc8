"""BMP, PNM and PFM: kinds that libvips is shipped without, decoded in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaleport.errors import ImageError
from scaleport.imaging import netpbm
from scaleport.imaging.convert import Pixels
from scaleport.imaging.kinds import BMP, Kind, check_size


@dataclass(frozen=True)
class Plain:
    """A decoded picture: [H, W] or [H, W, C], pixels per millimetre if said, and notes."""

    pixels: Pixels
    density: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def read_plain(path: Path, place: Path, kind: Kind, most_pixels: int) -> Plain:
    """Decode a file.

    Args:
        path: what it is called in errors.
        place: where it is read from.
        kind: BMP, PNM or PFM.
        most_pixels: limit of what it may declare.

    Raises:
        ImageError: if it is damaged, unsupported, or declares more than ``most_pixels``.
    """
    try:
        data = place.read_bytes()
        return _bitmap(path, data, most_pixels) if kind is BMP else _netpbm(path, data, most_pixels)
    except ImageError:
        raise
    except NotImplementedError as error:
        raise ImageError(f"{path} is a {kind.name} of an unsupported kind: {error}") from error
    except OSError as error:
        if error.strerror:
            raise ImageError(f"cannot read {path}: {error.strerror}") from error
        raise _damaged(path, error) from error
    except (ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ImageError:
    return ImageError(f"{path} is damaged: {' '.join(str(error).split())}")


def _netpbm(path: Path, data: bytes, most_pixels: int) -> Plain:
    header = netpbm.read_header(data)
    check_size(path, header.width, header.height, most_pixels)
    pixels, more = netpbm.decode(data, header)
    notes = ("only the first of several pictures was read",) if more else ()
    return Plain(np.ascontiguousarray(pixels), None, notes)


def _bitmap(path: Path, data: bytes, most_pixels: int) -> Plain:
    from PIL.BmpImagePlugin import BmpImageFile

    # Not through Image.open, whose limit of pixels is that of the process.
    with BmpImageFile(io.BytesIO(data)) as found:
        check_size(path, found.width, found.height, most_pixels)
        notes: tuple[str, ...] = ()
        if found.mode in ("1", "L"):
            pixels = np.asarray(found.convert("L"))
        elif found.mode == "RGBA":
            pixels = np.asarray(found)
            if not pixels[..., 3].any():
                # What many programs write that mean no alpha; nothing would be visible.
                pixels, notes = pixels[..., :3], ("alpha that hides everything was left out",)
        else:
            pixels = np.asarray(found.convert("RGB"))
        dpi = found.info.get("dpi", (0, 0))
        density = (dpi[0] / 25.4, dpi[1] / 25.4) if min(dpi) > 0 else None
    return Plain(np.ascontiguousarray(pixels), density, notes)
