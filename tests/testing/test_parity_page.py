"""The examples of docs/parity.md do what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"


def test_examples_of_the_page(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle("liif"), tmp_path / "photo.bundle")
    blocks = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert [name for name, _ in blocks] == ["test_photo.py", "my_engine.py", "test_my_engine.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    (line,) = re.findall(r"^pytest (--scaleport-bundle.*)$", PAGE.read_text("utf-8"), re.M)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "scaleport.pytest_plugin", *line.split()]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
