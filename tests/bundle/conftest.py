from __future__ import annotations

from pathlib import Path

import pytest
from bundle_samples import write


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write(tmp_path / "tiny.bundle")
    return tmp_path / "tiny.bundle"
