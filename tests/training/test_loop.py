import csv
import itertools
import os
import re
import signal

import msgspec
import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.cli.stopping import EXIT_INTERRUPTED  # noqa: E402
from scaleport.errors import ArtifactError, OutputError, UsageError  # noqa: E402
from scaleport.grid import Axis  # noqa: E402
from scaleport.models import load_checkpoint  # noqa: E402
from scaleport.models.checkpoint import read_metadata  # noqa: E402
from scaleport.training.__main__ import main  # noqa: E402
from scaleport.training.cache import build_cache  # noqa: E402
from scaleport.training.loop import Trainer  # noqa: E402
from scaleport.training.recipe import Optimiser, Recipe  # noqa: E402
from scaleport.training.schedule import Leg, continued, learning_rate  # noqa: E402


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    return build_cache(photos, tmp_path_factory.mktemp("cache"))


def trainer(cache, work, kind="igconv", **changes):
    recipe = msgspec.convert(tiny_recipe(kind, **changes), Recipe)
    recipe.check()
    return Trainer(recipe, cache, work)


def rows(work):
    with (work / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("kind", "bf16"), [("igconv", False), ("liif", False), ("liif", True)])
def test_resumed_equals_uninterrupted(cache, tmp_path, kind, bf16):
    whole = trainer(cache, tmp_path / "a", kind, bf16=bf16).run()
    assert whole.finished and whole.step == 8
    first = trainer(cache, tmp_path / "b", kind, bf16=bf16)
    stopped = first.run(until=5)
    assert not stopped.finished and stopped.model is None
    torch.manual_seed(99)  # nothing may depend on what the process did before
    second = trainer(cache, tmp_path / "b", kind, bf16=bf16)
    second.load_state()
    resumed = second.run()
    assert (tmp_path / "a/model.safetensors").read_bytes() == resumed.model.read_bytes()
    expected, got = (torch.load(tmp_path / w / "state.pt") for w in "ab")
    assert expected["step"] == got["step"] == 8
    for part in ("network", "average"):
        for name, value in expected[part].items():
            assert torch.equal(value, got[part][name]), name
    assert rows(tmp_path / "a")[-1]["val_psnr_y"] == rows(tmp_path / "b")[-1]["val_psnr_y"]


def test_loss_falls_and_the_model_loads(cache, tmp_path):
    losses = []
    run = trainer(cache, tmp_path, steps=40, optimiser={"lr": 5e-3})
    result = run.run(report=lambda step, loss, psnr: losses.append(loss))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    network = load_checkpoint(result.model)
    for name, value in run.average.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    info = read_metadata(result.model)["info"]
    assert info["steps"] == 40 and info["recipe"]["seed"] == 3


def test_average_is_not_the_last_weights(cache, tmp_path):
    run = trainer(cache, tmp_path)
    run.run()
    assert run.result_network is run.average
    pairs = zip(run.average.parameters(), run.network.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    plain = trainer(cache, tmp_path / "plain", ema=0.0)
    plain.run()
    assert plain.result_network is plain.network
    # The average only watches: training is the same with and without it.
    for a, b in zip(plain.network.parameters(), run.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_log(cache, tmp_path):
    trainer(cache, tmp_path).run()
    log = rows(tmp_path)
    assert [row["step"] for row in log] == ["4", "8"]
    assert all(float(row["loss"]) > 0 and float(row["val_psnr_y"]) > 5 for row in log)


def test_rows_after_the_state_are_dropped(cache, tmp_path):
    trainer(cache, tmp_path).run(until=5)
    with (tmp_path / "log.csv").open("a") as file:
        file.write("7,1,1,1,\n")
    again = trainer(cache, tmp_path)
    again.load_state()
    again.run()
    assert [row["step"] for row in rows(tmp_path)] == ["4", "8"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_stops(photos, tmp_path, monkeypatch, capsys, number):
    recipe, work = tmp_path / "r.yaml", tmp_path / "work"
    recipe.write_text(yaml.safe_dump(tiny_recipe(steps=6)))
    arguments = [str(recipe), "--data", str(photos), "--work", str(work)]
    step, before = Trainer._train_step, signal.getsignal(number)

    def interrupted(self, groups):
        if self.step == 3:
            os.kill(os.getpid(), number)
        return step(self, groups)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    assert main(arguments) == EXIT_INTERRUPTED
    said = capsys.readouterr().err
    assert "stopped at step 4" in said
    assert re.search(
        r"parameters on cpu, \d+ images and \d+ for validation, from step 0 to 6", said
    )
    assert signal.getsignal(number) == before
    monkeypatch.setattr(Trainer, "_train_step", step)
    assert main([*arguments, "--resume", "--until", "5"]) == EXIT_INTERRUPTED
    assert "stopped at step 5" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume", "--steps", "7"]) == 0
    assert load_checkpoint(work / "model.safetensors")


def test_a_loss_that_is_no_number_ends_the_run_and_says_how_to_go_on(
    cache, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(Trainer, "_train_step", lambda self, groups: torch.tensor(float("nan")))
    # A changed recipe cannot resume, so that is not what is proposed.
    with pytest.raises(UsageError, match=r"loss is nan at step 0.*another --work, with --init"):
        trainer(cache, tmp_path).run()
    assert not (tmp_path / "state.pt").exists()


def test_command_line_errors_are_one_line(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe()))
    arguments = [str(recipe), "--data", str(tmp_path / "none"), "--work", str(tmp_path / "w")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no such folder") and error.count("\n") == 1


def test_a_wrong_network_is_known_before_the_images_are_read(photos, tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({**tiny_recipe(), "model": "edsr-baseline-leaf"}))
    assert main([str(recipe), "--data", str(photos), "--work", str(tmp_path / "w")]) == 2
    assert "no composition 'edsr-baseline-leaf'; near it: edsr-baseline" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_resume_refuses_what_does_not_fit(cache, tmp_path):
    with pytest.raises(UsageError, match="nothing to resume"):
        trainer(cache, tmp_path).load_state()
    trainer(cache, tmp_path).run(until=1)
    with pytest.raises(UsageError, match="another recipe"):
        trainer(cache, tmp_path, seed=4).load_state()
    state = tmp_path / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="damaged"):
        trainer(cache, tmp_path).load_state()


def test_a_run_can_be_shortened(cache, tmp_path):
    trainer(cache, tmp_path, steps=20).run(until=3)
    again = trainer(cache, tmp_path, steps=6)
    again.load_state()
    result = again.run()
    assert result.finished and result.step == 6
    info = read_metadata(result.model)["info"]
    assert [(leg["made_at"], leg["start"], leg["end"]) for leg in info["schedule"]] == [
        (0, 0, 20),
        (3, 0, 6),
    ]
    assert info["recipe"]["steps"] == 6


def test_a_failed_write_keeps_the_old_state(cache, tmp_path, monkeypatch):
    run = trainer(cache, tmp_path)
    run.run(until=2)
    good = (tmp_path / "state.pt").read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="no space left"):
        run.save_state()
    assert (tmp_path / "state.pt").read_bytes() == good
    assert not list(tmp_path.glob("*.tmp"))


def test_diverged_run_says_what_to_do(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_train_step", lambda self, groups: torch.tensor(float("nan")))
    with pytest.raises(UsageError, match="optimiser"):
        trainer(cache, tmp_path).run()
    assert not (tmp_path / "state.pt").exists()


def test_scales_must_fit_the_network(cache, tmp_path):
    with pytest.raises(UsageError, match=r"\[2, 3\]"):
        trainer(cache, tmp_path, scales={"set": [2, 4]})
    with pytest.raises(UsageError, match=r"needs scales\.set"):
        trainer(cache, tmp_path, scales={"range": [1.0, 2.0]})


def test_learning_rates():
    leg = Leg(0, 0, 110, 1.0)
    cosine = Optimiser(lr=1.0, warmup=10, final_lr=0.1)
    values = [learning_rate(step, leg, cosine) for step in range(111)]
    assert values[0] == pytest.approx(0.1) and values[9] == values[10] == pytest.approx(1)
    assert values[60] == pytest.approx(0.55) and values[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))
    steps = Optimiser(lr=1.0, schedule="step", milestones=(5, 8), gamma=0.5)
    assert [learning_rate(s, leg, steps) for s in (4, 5, 7, 8)] == [1, 0.5, 0.5, 0.25]
    later = Leg(110, 110, 130, 0.5)
    options = Optimiser(lr=1.0, warmup=2, first_lr=0.1, final_lr=0)
    assert [learning_rate(s, later, options) for s in (110, 111, 112, 121, 130)] == pytest.approx(
        [0.3, 0.5, 0.5, 0.25, 0]
    )


def test_a_finished_run_goes_on_with_a_leg_of_its_own(cache, tmp_path):
    trainer(cache, tmp_path, steps=4).run()
    again = trainer(cache, tmp_path, steps=7)
    again.load_state(lr=5e-4)
    assert again.legs == [Leg(0, 0, 4, 1e-3), Leg(4, 4, 7, 5e-4)]
    assert again.run().finished
    assert continued(again.legs, 5, 9, 1.0)[-1] == Leg(5, 4, 9, 5e-4)
    assert continued(again.legs, 5, 7, 1.0) == again.legs


def test_hoisted_queries_equal_the_training_form():
    from scaleport.models.positions import GridTensors
    from scaleport.models.upsamplers.liif import LIIF

    torch.manual_seed(0)
    upsampler = LIIF(5, hidden=[7, 6]).double()
    feature = torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    rng = np.random.default_rng(0)
    rows, cols = Axis.whole(4, 11), Axis.whole(6, 16)
    at, to = rng.integers(11, size=(2, 90)), rng.integers(16, size=(2, 90))
    query = (rows.index[at], rows.offset[at], cols.index[to], cols.offset[to])
    query = [
        torch.from_numpy(q).double() if q.dtype == np.float32 else torch.from_numpy(q)
        for q in query
    ]
    scale = torch.tensor([[2.75, 16 / 6], [1.5, 3.0]], dtype=torch.float64)
    grads = []
    parameters = [feature, *upsampler.parameters()]
    for form in (upsampler.points, upsampler.train_points):
        out = form(feature, GridTensors(*query, scale))
        grads.append([out, *torch.autograd.grad(out.square().sum(), parameters)])
    for one, other in zip(*grads, strict=True):
        assert (one - other).abs().max() <= 1e-10
