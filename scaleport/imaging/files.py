"""Image files: PNG, JPEG, WebP and TIFF, with what belongs to the pixels.

Reading and writing goes through Pillow; nothing of it shows in the interface.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL
import PIL.Image
import PIL.ImageCms

from scaleport.errors import ImageError, OutOfMemoryError, OutputError, UsageError
from scaleport.imaging.convert import Pixels, layout_of

WRITABLE: Final = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""File formats by suffix, the choices of :func:`save_image`."""

READABLE: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")
"""File formats that :func:`load_image` reads, whatever the file is called."""

_LONGEST_SIDE: Final = {"JPEG": 65_500, "WEBP": 16_383}
_MODES_16_BIT: Final = {"I;16", "I;16L", "I;16B", "I;16N"}
# Modes whose pixels are taken as they are, and what the others become.
_DIRECT: Final = {"L", "LA", "RGB", "RGBA"}
_CONVERTED: Final = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}

_ORIENTATION: Final = 0x0112
_EXIF_IFD: Final = 0x8769
_GPS_IFD: Final = 0x8825
# Sizes in pixels, and the position of a further block in the old file.
_STALE_TAGS: Final = (0xA002, 0xA003, 0xA005)
# In a TIFF the tags that describe the picture sit among those that say where its bytes are;
# only these are worth keeping: description, make, model, software, date, artist, copyright.
_DESCRIPTIVE_TAGS: Final = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)


@dataclass(frozen=True, eq=False)
class Image:
    """A picture in memory.

    ``pixels`` is uint8 or uint16, [H, W] or [H, W, C]: gray, gray and alpha (2), RGB (3), RGB and
    alpha (4); upright, whatever way the camera was held. ``notes`` are sentences about what the
    file held and the pixels do not.
    """

    pixels: Pixels
    icc: bytes | None = None
    """ICC colour profile, to be kept with the pixels."""
    exif: bytes | None = None
    """EXIF block without orientation and sizes, which would no longer be true."""
    notes: tuple[str, ...] = ()


def load_image(path: Path | str) -> Image:
    """Read an image file.

    Palettes and CMYK become RGB. 16-bit gray stays 16-bit; 16-bit colour is read as 8-bit, which
    a note says. Of several frames or pages the first is read.

    Raises:
        ImageError: if the file is missing, empty, damaged or of an unsupported kind.
        OutOfMemoryError: if the picture does not fit into memory.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(f"cannot read {path}: {reason or error}") from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes)")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=READABLE) as picture:
            notes = _notes(picture, data)
            try:
                exif, orientation = _read_exif(picture)
            except Exception:
                # Damaged EXIF, which fails as variously as damaged pixels, must not cost the image.
                exif, orientation = None, 1
                notes += ("its EXIF block is damaged and was left out",)
            icc = picture.info.get("icc_profile") or None
            pixels, icc = _read_pixels(picture, icc)
    except PIL.UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is damaged or of an unsupported kind; supported are {', '.join(READABLE)}"
        ) from error
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"{path} declares too many pixels: {error}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"{path} does not fit into memory") from error
    except ImageError as error:
        raise ImageError(f"{path} {error}") from error
    except Exception as error:
        # Decoders meet damaged data in many ways: SyntaxError, struct.error, IndexError, ...
        raise ImageError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return Image(_upright(pixels, orientation), icc, exif, notes)


def save_image(
    path: Path | str, image: Image, *, quality: int = 95, lossless: bool = False
) -> None:
    """Write an image file; an existing one is replaced only when the new one is complete.

    Args:
        path: target; its suffix chooses the format, see :data:`WRITABLE`.
        image: what to write. 16 bits per channel fit gray PNG and TIFF only; alpha does not fit
            JPEG.
        quality: 1 to 100, of JPEG and lossy WebP. JPEG keeps colour at full resolution.
        lossless: write WebP without loss.

    Raises:
        OutputError: if the suffix is unknown, the format cannot hold the pixels, or the file
            cannot be written.
        ImageError: if ``image.pixels`` is not a picture of integers.
        UsageError: if ``quality`` is out of range.
    """
    path = Path(path)
    if not 1 <= quality <= 100:
        raise UsageError(f"quality must be from 1 to 100, got {quality}")
    kind = check_target(path)
    picture = _to_pillow(path, kind, image.pixels)
    by_kind: dict[str, dict[str, Any]] = {
        "PNG": {},
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "lossless": lossless, "exact": True},
        # libtiff, which compresses, cannot write the nested directories of an EXIF block.
        "TIFF": {} if image.exif else {"compression": "tiff_adobe_deflate"},
    }
    options = by_kind[kind]
    if image.icc and _profile_fits(image.icc, gray=picture.mode in {"L", "LA", "I;16"}, kind=kind):
        options["icc_profile"] = image.icc
    if image.exif:
        options["exif"] = image.exif
    _write(path, lambda file: picture.save(file, kind, **options))


def check_target(path: Path | str) -> str:
    """The format that a path stands for; lets a program refuse a target before the work.

    Raises:
        OutputError: if the suffix is unknown or the directory does not exist.
    """
    path = Path(path)
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"cannot tell the format of {path} from its suffix; use one of {', '.join(WRITABLE)}"
        )
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no directory {path.parent}")
    return kind


def _notes(picture: PIL.Image.Image, data: bytes) -> tuple[str, ...]:
    notes = []
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # the other pictures of an MPO are previews
        notes.append(f"only the first of {frames} frames was read")
    if picture.format == "PNG":
        bits = data[24]  # the header chunk always comes first
    elif picture.format == "TIFF":
        bits = max(picture.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    else:
        bits = 8
    if bits > 8 and picture.mode in {"RGB", "RGBA", "LA", "CMYK", "RGBX"}:
        notes.append(f"{bits} bits per channel were read as 8")
    return tuple(notes)


def _read_pixels(picture: PIL.Image.Image, icc: bytes | None) -> tuple[Pixels, bytes | None]:
    picture.load()
    mode = picture.mode
    if mode in _MODES_16_BIT:
        return np.asarray(picture).astype(np.uint16), icc
    if mode == "I":
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError("holds 32-bit integers beyond the range of 16 bits")
        return values.astype(np.uint16), icc
    if mode == "P" or "transparency" in picture.info:
        gray = mode in {"1", "L"}
        if picture.has_transparency_data:
            picture = picture.convert("LA" if gray else "RGBA")
        elif not gray:
            picture = picture.convert("RGB")
    if mode == "CMYK":
        return np.array(_cmyk_to_rgb(picture, icc)), None
    target = picture.mode if picture.mode in _DIRECT else _CONVERTED.get(picture.mode)
    if target is None:
        raise ImageError(f"has pixels of an unsupported kind ({mode})")
    return np.array(picture if target == picture.mode else picture.convert(target)), icc


def _cmyk_to_rgb(picture: PIL.Image.Image, icc: bytes | None) -> PIL.Image.Image:
    """CMYK means nothing without its profile; without one Pillow's plain formula has to do."""
    if icc:
        with contextlib.suppress(PIL.ImageCms.PyCMSError, OSError):
            source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(icc))
            target = PIL.ImageCms.createProfile("sRGB")
            converted = PIL.ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
            if converted is not None:
                return converted
    return picture.convert("RGB")


def _read_exif(picture: PIL.Image.Image) -> tuple[bytes | None, int]:
    """EXIF to keep, and the orientation 1 to 8."""
    exif = picture.getexif()
    kept = PIL.Image.Exif()
    for tag, value in exif.items():
        described = tag in _DESCRIPTIVE_TAGS or picture.format != "TIFF"
        if described and tag not in (_ORIENTATION, _EXIF_IFD, _GPS_IFD):
            kept[tag] = value
    for group in (_EXIF_IFD, _GPS_IFD):
        values = {k: v for k, v in exif.get_ifd(group).items() if k not in _STALE_TAGS}
        if values:
            kept[group] = values
    data = kept.tobytes() if len(kept) else None
    orientation = exif.get(_ORIENTATION, 1)
    return data, int(orientation) if orientation in range(1, 9) else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: 5 to 8 are stored with rows and columns exchanged."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_pillow(path: Path, kind: str, pixels: Pixels) -> PIL.Image.Image:
    layout = layout_of(pixels)
    if layout.dtype.kind == "f":
        raise ImageError("a file holds integers; convert float pixels to uint8 or uint16 first")
    if layout.has_alpha and kind == "JPEG":
        raise OutputError(f"{path}: JPEG cannot hold alpha; use .png, .webp or .tiff")
    if layout.dtype == np.uint16:
        if kind not in {"PNG", "TIFF"}:
            raise OutputError(f"{path}: {kind} cannot hold 16 bits per channel; use .png or .tiff")
        if layout.channels > 1:
            raise OutputError(
                f"{path}: 16 bits per channel are written for gray pictures only; "
                "convert the pixels to uint8"
            )
    longest = _LONGEST_SIDE.get(kind)
    if longest and max(pixels.shape[:2]) > longest:
        raise OutputError(
            f"{path}: {kind} cannot hold {pixels.shape[1]}x{pixels.shape[0]} pixels, a side is at "
            f"most {longest}; use .png or .tiff"
        )
    if layout.channels == 1:
        pixels = pixels[..., 0]
    return PIL.Image.fromarray(np.ascontiguousarray(pixels, dtype=layout.dtype))


def _profile_fits(icc: bytes, gray: bool, kind: str) -> bool:
    """Whether a profile describes what the file will hold; bytes 16 to 19 name its colour space."""
    return icc[16:20] != b"GRAY" or (gray and kind != "WEBP")  # WebP stores gray as RGB


def _write(path: Path, encode: Callable[[Any], object]) -> None:
    """Encode to a temporary file beside the target, then rename."""
    target = path
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        if path.is_symlink():
            target = path.resolve()
            temporary = target.with_name(temporary.name)
        with temporary.open("xb") as file:
            encode(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise OutputError(f"cannot write {path}: {reason or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
