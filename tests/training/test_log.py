"""The record of a run: what a resumed run keeps, and that it is never lost."""

from pathlib import Path

import pytest

from scaleport.errors import OutputError, UsageError
from scaleport.training.log import LOG_FILE, Log, Row, read_log

ROWS = [Row(10, 1e-3, 0.5, 1.5), Row(20, 5e-4, 0.25, 1.5, 30.125), Row(30, 1e-4, 0.125, 1.5)]


def written(work):
    with Log(work, 0) as log:
        for row in ROWS:
            log.row(row)
    return work / LOG_FILE


def test_rows_come_back(tmp_path):
    assert read_log(written(tmp_path)) == ROWS


def test_a_resumed_run_drops_what_it_repeats(tmp_path):
    path = written(tmp_path)
    again = Row(30, 2e-4, 0.0625, 2.0)
    with Log(tmp_path, 20) as log:
        assert read_log(path) == ROWS[:2]
        log.row(again)
    assert read_log(path) == [*ROWS[:2], again]


def test_a_new_run_begins_empty(tmp_path):
    path = written(tmp_path)
    with Log(tmp_path, 0):
        assert read_log(path) == []


def test_nothing_is_lost_when_the_beginning_fails(tmp_path, monkeypatch):
    path = written(tmp_path)
    before = path.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        Log(tmp_path, 20)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [LOG_FILE]


def test_tensorboard_holds_the_same(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Log(tmp_path, 0, tensorboard=True) as log:
        for row in ROWS:
            log.row(row)
    with Log(tmp_path, 20, tensorboard=True) as log:
        log.row(Row(30, 2e-4, 0.0625, 2.0))
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    assert found["loss"] == [(10, 0.5), (20, 0.25), (30, 0.0625)]
    assert found["val_psnr_y"] == [(20, 30.125)]
    assert [step for step, _ in found["lr"]] == [10, 20, 30]


def test_without_tensorboard_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = written(tmp_path)
    before = path.read_bytes()
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        Log(tmp_path, 20, tensorboard=True)
    assert path.read_bytes() == before
