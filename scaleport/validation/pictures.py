"""Made-up pictures for comparisons: the same on every machine, with what real ones are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scaleport.aliases import Float32Array
from scaleport.errors import UsageError

_GLYPH = 5
# Waves over the picture, down and across, and their phase.
_WAVES = ((0.4, 1.6), (0.4, 1.6), (0.0, 6.0))


def picture(height: int, width: int, seed: int = 0) -> Float32Array:
    """A picture with smooth shading, hard edges, fine strokes, lettering and grain.

    Args:
        height: rows in pixels.
        width: columns in pixels.
        seed: another number gives another picture of the same kind.

    Returns:
        float32[1, 3, height, width], RGB in [0, 1].

    Raises:
        UsageError: if a length is below 1.
    """
    if height < 1 or width < 1:
        raise UsageError(f"a picture needs at least 1x1 pixels, got {height}x{width}")
    # A bit generator by name: the default one of numpy may change between its versions.
    rng = np.random.Generator(np.random.PCG64([seed, height, width]))
    y = (np.arange(height)[:, None] + 0.5) / height
    x = (np.arange(width)[None, :] + 0.5) / width
    planes = []
    for _ in range(3):
        fy, fx, phase = (float(rng.uniform(low, high)) for low, high in _WAVES)
        planes.append(0.5 + 0.35 * np.sin(2 * np.pi * (fy * y + fx * x) + phase))
    image = np.stack(planes)
    # A bright disc and a dark half-plane: curved and slanted edges one pixel wide.
    disc = (y - 0.35) ** 2 + (x - 0.3) ** 2 < 0.05
    image[:, disc] = rng.uniform(0.7, 1.0, (3, 1))
    image[:, y + 0.4 * x > 1.05] *= 0.3
    _letter(image, rng)
    # Strokes at the Nyquist frequency in a corner, where aliasing would show.
    stripes = image[:, : height // 4, width - width // 4 :]
    stripes[:] = np.where(np.arange(stripes.shape[2]) % 2, 0.9, 0.1)
    image += rng.normal(0, 0.02, image.shape)
    clipped: Float32Array = np.clip(image, 0, 1).astype(np.float32)[None]
    return clipped


def pictures(height: int, width: int, count: int) -> Float32Array:
    """Test images of one size, all different: float32[count, 3, height, width] in [0, 1].

    Raises:
        UsageError: if a length is below 1.
    """
    first = picture(height, width)
    # Mirrored ones: what belongs to one image must not show in another.
    images = [first if i % 2 == 0 else first[..., ::-1] for i in range(count)]
    return np.ascontiguousarray(np.concatenate(images))


def mirrored_picture(height: int, width: int, seed: int = 0) -> Float32Array:
    """A picture whose lower half mirrors its upper one, so that both ends show the same.

    Args:
        height: rows in pixels, even.
        width: columns in pixels.
        seed: as of :func:`picture`.

    Returns:
        float32[1, 3, height, width] in [0, 1].

    Raises:
        UsageError: if the height is odd or a length is below 1.
    """
    if height % 2:
        raise UsageError(f"a mirrored picture needs an even height, got {height}")
    upper = picture(height // 2, width, seed)
    return np.ascontiguousarray(np.concatenate([upper, upper[:, :, ::-1]], axis=2))


def _letter(image: npt.NDArray[np.float64], rng: np.random.Generator) -> None:
    """Write rows of random glyphs over the lower half."""
    height, width = image.shape[1:]
    pitch = _GLYPH + 1
    for top in range(height // 2, height - _GLYPH + 1, pitch + 1):
        for left in range(1, width - _GLYPH + 1, pitch):
            ink = rng.random((_GLYPH, _GLYPH)) < 0.45
            image[:, top : top + _GLYPH, left : left + _GLYPH][:, ink] = 0.05
