import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Five small pictures in a folder tree: smooth waves with an edge, so that L1 can fall."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    y, x = np.mgrid[:40, :44]
    for i in range(5):
        waves = [np.sin((x * (i + 1) + y * (c + 1)) / 9) * 100 + 128 for c in range(3)]
        image = np.where((x + y > 40)[..., None], np.stack(waves, axis=-1), 60).astype(np.uint8)
        path = folder / ("below" if i % 2 else ".") / f"{i}.{'jpg' if i == 3 else 'png'}"
        Image.fromarray(image).save(path)
    return folder
