"""The parity grid itself: it must not shrink unseen, and must fit the model."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from validation_samples import manifest

from scaleport.bundle.manifest import ScaleRange, SizeRange
from scaleport.errors import UsageError
from scaleport.grid import output_length
from scaleport.validation.parity.cases import (
    SCALES,
    TILE,
    UNSEEN,
    plan_cases,
    policy_of,
    refused_scales,
    shapes_of,
    split_scales,
)

FOUR = ScaleRange(min=1.0, max=4.0, native=(2, 3, 4))


def by_mode(cases, mode):
    return {(case.shape.name, case.scale) for case in cases if case.mode == mode}


def test_scales_of_the_grid():
    # Identity, decimals, native ones, irrational, extreme, anisotropic, and one never trained.
    wanted = {1.0, 1.3, 2.0, 2.7, 3.0, math.pi, 4.0, 8.0, UNSEEN}
    assert {y for y, x in SCALES if y == x} == wanted
    assert [pair for pair in SCALES if pair[0] != pair[1]] == [(2.0, 3.5)]


def test_shapes_of_the_grid():
    shapes = {shape.name: shape for shape in shapes_of(manifest(receptive_field=8))}
    assert set(shapes) == {"odd", "prime", "tall", "wide", "one-window", "pair", "large"}
    assert shapes["tall"].height > 5 * shapes["tall"].width
    assert shapes["wide"].width > 5 * shapes["wide"].height
    # Sizes on a tie of the rounding rule, which a float32 scale alone would miss.
    assert shapes["odd"].height * 13 % 10 == 5
    assert output_length(shapes["odd"].height, 1.3) == 20


@pytest.mark.parametrize("radius", [0, 8, 36, 300])
def test_largest_shape_is_larger_than_the_crop_of_a_tile(radius):
    large = shapes_of(manifest(receptive_field=radius))[-1]
    assert min(large.height, large.width) > 2 * TILE
    # The crop of the first tile reaches one halo beyond it.
    assert min(large.height, large.width) > TILE + radius


def test_full_grid():
    cases = plan_cases(manifest())
    assert len(cases) == len(set(cases))
    names = {"odd", "prime", "tall", "wide", "one-window", "pair", "large"}
    for mode in ("staged", "whole"):
        found = by_mode(cases, mode)
        assert {(name, s) for name in names for s in SCALES if s != (8.0, 8.0)} <= found
        assert {name for name, s in found if s == (8.0, 8.0)} == {
            "odd",
            "prime",
            "one-window",
            "pair",
        }
    assert {name for name, _ in by_mode(cases, "tiled")} == {"large"}
    assert len(by_mode(cases, "tiled")) == 9


def test_quick_grid_has_every_scale_and_every_shape():
    for mode in ("staged", "whole"):
        found = by_mode(plan_cases(manifest(), "quick"), mode)
        assert {scale for _, scale in found} == set(SCALES)
        assert {name for name, _ in found} == {shape.name for shape in shapes_of(manifest())}
    quick = plan_cases(manifest(), "quick")
    assert {(2.0, 2.0), (2.7, 2.7)} <= {case.scale for case in quick if case.mode == "tiled"}
    assert len(quick) < len(plan_cases(manifest())) / 3


def test_cases_of_one_view_come_together():
    keys = [(case.shape, case.mode) for case in plan_cases(manifest())]
    changes = sum(a != b for a, b in pairwise(keys))
    assert changes == len(set(keys)) - 1


def test_only_declared_scales_are_run_and_the_others_are_refused():
    small = manifest(scale=FOUR)
    inside, outside = split_scales(small)
    assert outside == ((8.0, 8.0),)
    assert {case.scale for case in plan_cases(small)} == set(inside)
    refused = refused_scales(small)
    assert (8.0, 8.0) in refused
    assert min(refused)[0] < 1
    assert any(4 < y < 5 for y, _ in refused)


def test_without_a_whole_graph_or_tiles():
    assert by_mode(plan_cases(manifest(), whole=False), "whole") == set()
    assert by_mode(plan_cases(manifest(tiling="not-allowed")), "tiled") == set()


def test_engines_are_asked_only_for_sizes_they_were_built_for():
    sizes = SizeRange(min=10, opt=16, max=45)
    small = manifest(height=sizes, width=sizes)
    assert {c.shape.name for c in plan_cases(small, declared_sizes_only=True)} == {"odd", "prime"}
    assert len({c.shape.name for c in plan_cases(small)}) == 7


def test_nothing_left_to_run_is_an_error():
    none = SizeRange(min=900, opt=900, max=900)
    with pytest.raises(UsageError, match="leave no parity case"):
        plan_cases(manifest(height=none), declared_sizes_only=True)
    with pytest.raises(UsageError, match="unknown selection 'some'; known: full, quick"):
        plan_cases(manifest(), "some")


def test_tiled_mode_really_tiles():
    assert policy_of("tiled").tile == TILE
    assert policy_of("staged").tile == policy_of("whole").tile == 0


@pytest.mark.parametrize("selection", ["full", "quick"])
def test_graphs_of_fixed_sizes_have_a_case_for_every_scale(selection):
    fixed = manifest(
        height=SizeRange(min=64, opt=64, max=64), width=SizeRange(min=96, opt=96, max=96)
    )
    cases = plan_cases(fixed, selection, declared_sizes_only=True, whole=False)
    assert {(case.shape.height, case.shape.width) for case in cases} == {(64, 96)}
    assert {case.mode for case in cases} == {"staged"}
    scales, _ = split_scales(fixed)
    small = {s for s in scales if s[0] * s[1] <= 20}
    assert {case.scale for case in cases} >= small
    # Graphs that take any size are held to the usual shapes too.
    assert len({case.shape.name for case in plan_cases(fixed)}) == 8
