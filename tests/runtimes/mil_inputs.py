"""Inputs and weights of the MIL operation cases."""

from __future__ import annotations

import numpy as np

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


FEEDS = {
    "image": normal(2, 6, 8, 10),
    "small": RNG.uniform(-0.9, 0.9, (3, 7)).astype(np.float32),
    "positive": RNG.uniform(0.5, 2.0, (3, 7)).astype(np.float32),
    "line": normal(2, 6, 11),
    "left": normal(2, 5, 4),
    "right": normal(2, 4, 3),
    "points": RNG.uniform(-1.3, 1.3, (2, 5, 4, 2)).astype(np.float32),
    "index": np.array([3, 0, 5, 5], np.int32),
    "whole": np.array([[7, -7, 9], [-9, 2, 100_003]], np.int32),
    "along": RNG.integers(0, 8, (2, 6, 3, 10)).astype(np.int32),
}
KERNEL = normal(4, 6, 3, 3)
GROUPED = normal(6, 2, 3, 3)
DEPTHWISE = normal(6, 1, 3, 3)
LINE_KERNEL = normal(5, 6, 3)
BIAS = normal(4)
TRANSPOSED = normal(6, 4, 3, 3)
MATRIX = normal(9, 10)
SCALES = normal(6)
SHIFTS = normal(6)
WIDE = normal(8, 10)
POSITIVE = RNG.uniform(0.5, 2, 6).astype(np.float32)
