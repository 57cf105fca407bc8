"""Schedules over time, and the mean squared error at the end of a schedule."""

from __future__ import annotations

import shlex

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.cli.main import main  # noqa: E402
from scaleport.training import schedule  # noqa: E402
from scaleport.training.cache import build_cache  # noqa: E402
from scaleport.training.log import read_log  # noqa: E402
from scaleport.training.loop import Trainer  # noqa: E402
from scaleport.training.recipe import Recipe  # noqa: E402


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    return build_cache(photos, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def trainer(cache, tmp_path, monkeypatch):
    """Make trainers whose every step takes 3 seconds on a clock that nothing else moves."""
    now = [1000.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])

    def make(minutes=0.0, **changes):
        recipe = msgspec.convert(tiny_recipe(**changes), Recipe)
        run = Trainer(recipe, cache, tmp_path / "run", minutes=minutes)
        step = run._train_step
        run.seen = []

        def timed(groups):
            loss = step(groups)
            now[0] += 3
            run.seen.append((run.optimiser.param_groups[0]["lr"], run._measure.squared))
            return loss

        run._train_step = timed
        return run

    return make


def test_the_schedule_is_laid_over_the_time(trainer, tmp_path):
    """One minute of steps of 3 seconds: 20 steps, whose rates are those of a recipe of 20."""
    timed = trainer(minutes=1.0, steps=8, optimiser={"lr": 1e-3, "warmup": 2})
    result = timed.run()
    assert result.finished and result.step == 20
    stepped = trainer(steps=20, optimiser={"lr": 1e-3, "warmup": 5})
    stepped.run()
    rates = [rate for rate, _ in timed.seen]
    # Behind the warm-up, whose length is in steps, both follow one cosine.
    assert rates[5:] == pytest.approx([rate for rate, _ in stepped.seen][5:], rel=1e-6)
    assert max(rates) == pytest.approx(1e-3, rel=1e-3) and rates[0] < rates[3]


def test_time_goes_on_where_it_stopped(trainer, tmp_path):
    first = trainer(minutes=1.0)
    assert not first.run(until=12).finished
    again = trainer(minutes=1.0)
    again.load_state()
    assert again.budget.spent == 36
    result = again.run()
    assert result.finished and result.step == 20
    # The last row is of the end of the schedule.
    rows = read_log(tmp_path / "run/log.csv")
    assert rows[-1].step == 20 and rows[-1].lr == pytest.approx(1e-6)
    # What is finished stays so, and more time lays the schedule out anew.
    assert trainer(minutes=1.0).budget.minutes == 1
    more = trainer(minutes=1.5)
    more.load_state()
    assert [leg.minutes for leg in more.legs] == [1.0, 1.5]
    assert more.run().step == 30


def test_a_resumed_run_knows_its_time(trainer):
    trainer(minutes=1.0).run(until=4)
    again = trainer()
    again.load_state()
    assert again.run().step == 20


def test_the_squared_error_comes_last(trainer):
    run = trainer(steps=8, loss={"last_mse": 0.25})
    run.run()
    assert [squared for _, squared in run.seen] == [False] * 6 + [True] * 2
    never = trainer(steps=8)
    never.step = 0
    never.run()
    assert not any(squared for _, squared in never.seen)


def test_minutes_or_steps(photos, tmp_path, capfd):
    line = f"train smoke/liif --data {photos} --work {tmp_path}/run --minutes 1 --steps 5"
    assert main(shlex.split(line)) == 2
    assert "--minutes takes the place of --steps" in capfd.readouterr().err
