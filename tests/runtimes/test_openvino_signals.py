"""OpenVINO must not leave a process in which a signal is fatal."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import gc, os, signal, sys
import numpy as np
import scaleport

upscaler = scaleport.load(sys.argv[1], backend="openvino")
upscaler(np.zeros((9, 8, 3), np.uint8), scale=2)
del upscaler
gc.collect()
seen = []
signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
os.kill(os.getpid(), signal.SIGINT)
assert seen == [signal.SIGINT]
print("alive")
"""


def test_a_signal_is_harmless_after_the_last_session_is_gone(tiny_bundle):
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", SCRIPT, str(tiny_bundle("liif"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr
