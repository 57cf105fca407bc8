"""Turns, medians and counted work."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scaleport.benchmark import timing
from scaleport.benchmark.timing import Spread, ratio, rounds
from scaleport.benchmark.work import deploy_work, macs
from scaleport.catalogue import Work, catalogue
from scaleport.grid import Grid


def test_everyone_takes_turns_and_every_other_round_goes_backwards() -> None:
    calls = []
    seconds = rounds({name: lambda n=name: calls.append(n) for name in "abc"}, 3)
    assert "".join(calls) == "cba" + "abc" + "cba" + "abc"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_quick_work_is_called_until_a_turn_is_long_enough(monkeypatch) -> None:
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def quick() -> None:
        now[0] += 0.25 if calls else 4.0  # the first call loads something
        calls.append(1)

    seconds = rounds({"quick": quick}, 2, least=1.0)
    assert len(calls) == 2 + 4 + 4
    assert seconds == {"quick": [0.25, 0.25]}


def test_a_ratio_is_taken_within_rounds() -> None:
    # The second round is ten times slower for both, as on a machine that gets busy.
    assert ratio({"a": [2.0, 20.0, 2.0], "b": [1.0, 10.0, 1.0]}, "a", "b") == 2


def test_spread() -> None:
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)


def test_work_of_a_known_network_needs_no_counting(monkeypatch) -> None:
    monkeypatch.setattr("scaleport.benchmark.work.find_spec", lambda name: None)
    known = catalogue().find("edsr-baseline-liif")
    said = {"encoder": {"name": "edsr", "width": 64, "blocks": 16}, "upsampler": {"name": "liif"}}
    assert deploy_work(SimpleNamespace(model=said)) == known.macs.deploy
    other = {**said, "encoder": {"name": "edsr", "width": 63}}
    assert deploy_work(SimpleNamespace(model=other)) is None


@pytest.mark.parametrize(("family", "rendered"), [("query", 25 * 25), ("lattice", 30 * 30)])
def test_work_of_an_upscale(family: str, rendered: int) -> None:
    manifest = SimpleNamespace(family=family, scale=SimpleNamespace(native=(2, 3, 4)))
    work = Work(prepare=7, encode=100.0, encoder=90.0, render=3.0)
    assert macs(work, manifest, Grid.from_scale(10, 10, 2.5)) == 100 * 100 + 3 * rendered
