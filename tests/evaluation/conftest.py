import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def bench(tmp_path):
    """Two image sets: ``Own`` with one RGB and one gray image, ``Other`` with one image."""
    rng = np.random.default_rng(0)
    pictures = {
        "Own/a.png": rng.integers(0, 256, (50, 45, 3), dtype=np.uint8),
        "Own/b.png": rng.integers(0, 256, (44, 56), dtype=np.uint8),
        "Other/c.png": rng.integers(0, 256, (48, 48, 3), dtype=np.uint8),
    }
    for name, pixels in pictures.items():
        path = tmp_path / "bench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "bench"
