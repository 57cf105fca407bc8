"""Distances of tensors, which of them are twins, and the first that is too far."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scaleport.validation.bisection.divergence import (
    Inner,
    first_divergence,
    matched_by_module,
    names_agree,
    share,
    statistics,
    without_collisions,
)
from scaleport.validation.bisection.traced import Tensor

ONE = np.ones((2, 3), np.float32)


def value(name, array=ONE, module="", operation="Conv"):
    return Inner(name, operation, array, module)


def twin(array=ONE, module="", operation="conv2d"):
    return Tensor(module, operation, array)


def test_shares_of_the_tolerance():
    assert share(ONE, ONE, 1e-4) == 0
    assert share(ONE + np.float32(0.5), ONE, 1.0) == pytest.approx(0.5)
    assert share(ONE * 1000 + np.float32(0.5), ONE * 1000, 1e-3) == pytest.approx(0.5, rel=1e-3)
    assert share(ONE[:1], ONE, 1.0) == math.inf
    assert share(np.full_like(ONE, np.nan), ONE, 1.0) == math.inf
    masked = np.array([1.0, -np.inf])
    assert share(masked, masked, 1e-4) == 0
    assert share(np.array([1, 2]), np.array([1, 3]), 1.0) == math.inf


def test_statistics_of_an_overflow():
    found = ONE.copy()
    found[1, 2] = np.inf
    found[0, 1] = 3
    told = statistics(found, ONE)
    assert (told.not_finite, told.worst, told.max_abs) == (1, (1, 2), 2.0)
    assert (told.found_there, told.expected_there) == ("inf", "1")
    assert told.found_range == (1.0, 3.0)


def test_the_first_one_is_reported_and_the_ones_before_are_right():
    values = [value("a"), value("b", ONE + 1), value("c", ONE + 2), value("unknown")]
    reference = {name: twin(module=f"m.{name}") for name in "abc"}
    told = first_divergence("encode", values, reference, 1e-4)
    assert told.divergence.place == "encode: m.b"
    assert (told.tensors, told.matched) == (2, 2)
    told = first_divergence("encode", [values[0], values[3]], reference, 1e-4)
    assert (told.divergence, told.tensors, told.matched, told.modules) == (None, 2, 1, 1)


def test_sides_of_a_limit_are_not_compared():
    values = [value("le", np.array([True])), value("n", np.array([4]))]
    reference = {"le": twin(np.array([False])), "n": twin(np.array([4]))}
    assert first_divergence("x", values, reference, 1e-4).divergence is None


def test_names_of_another_export():
    assert names_agree([value("a", ONE + 5)], {"a": twin()})
    assert not names_agree([value("a", ONE[None])], {"a": twin()})
    assert not names_agree([value("a", ONE.astype(np.int32))], {"a": twin()})
    assert not names_agree([value("a", module="m.1")], {"a": twin(module="m.2")})
    assert names_agree([value("front/lr")], {"front/lr": twin(module="front")})
    assert names_agree([value("base", module="m.1")], {"base": twin(module="encode: m.1")})
    assert names_agree([value("encode/a", module="m.1")], {"encode/a": twin(module="encode: m.1")})


def test_by_module_the_nearest_is_the_twin():
    reference = {"x": twin(ONE, "m.1"), "y": twin(ONE + 1, "m.1"), "z": twin(ONE, "m.2")}
    values = [value("q", ONE + 1, "m.1"), value("r", ONE, "m.1"), value("s", ONE + 9, "m.2")]
    found = matched_by_module(values, reference, ["z"])
    assert found["q"] is reference["y"]
    assert found["r"] is reference["x"]
    told = first_divergence("encode", values, found, 1e-4)
    assert told.divergence.place == "encode: m.2"


def test_names_that_a_converter_made():
    reference = {"gather_1": twin(ONE, operation="index"), "relu_1": twin(ONE, operation="relu")}
    values = [value("gather_1", operation="gather"), value("relu_1", operation="relu")]
    assert [item.name for item in without_collisions(values, reference)] == ["", "relu_1"]
