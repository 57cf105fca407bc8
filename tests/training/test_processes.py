"""Runs in processes of their own: killed ones, and several that share a batch."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.training.state import read_state  # noqa: E402

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

RUN = """
import sys
from scaleport.training.cache import build_cache
from scaleport.training.loop import Trainer
from scaleport.training.recipe import load_recipe
from pathlib import Path

recipe, images, work = (Path(argument) for argument in sys.argv[1:])
trainer = Trainer(load_recipe(recipe), build_cache(images, work), work)
if (work / "state.pt").exists():
    trainer.load_state()
trainer.run(report=lambda step, loss, psnr: print(step, flush=True))
"""


def launched(*arguments):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finished(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def test_killed_ten_times_equals_uninterrupted(photos, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe(steps=120, checkpoint_every=4)))
    arguments = ("-c", RUN, recipe, photos)
    finished(launched(*arguments, tmp_path / "whole"))
    rng, last = random.Random(5), 0
    for _ in range(10):
        process = launched(*arguments, tmp_path / "killed")
        stop = last + rng.randint(1, 11)
        step = last
        while step < stop:
            step = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        path = tmp_path / "killed/state.pt"
        saved = read_state(path)["step"] if path.exists() else 0
        # No more is lost than the steps since the last state. The process may have gone on
        # between the line that was read and its end.
        assert saved >= stop - stop % 4
        last = saved
    steps = finished(launched(*arguments, tmp_path / "killed")).split()
    assert int(steps[0]) == last + 1 and int(steps[-1]) == 120
    models = [tmp_path / run / "model.safetensors" for run in ("whole", "killed")]
    assert models[0].read_bytes() == models[1].read_bytes()


@pytest.mark.parametrize("kind", ["igconv", "liif"])
def test_two_processes_have_the_gradients_of_one(photos, tmp_path, kind):
    recipe = tmp_path / "r.yaml"
    changes = {"batch": 4, "validation": {"images": 1, "crop": 24, "every": 2}}
    if kind == "liif":
        changes["scales"] = {"range": [1.0, 3.0], "per": "sample"}
    recipe.write_text(yaml.safe_dump(tiny_recipe(kind, **changes)))
    gradients, weights = [], []
    for count in (1, 2):
        out = tmp_path / str(count)
        finished(launched(HERE / "gradients.py", recipe, photos, out, count))
        gradients.append(torch.load(out / "gradients.pt"))
        weights.append(read_state(out / "state.pt")["network"])
    assert gradients[0].keys() == gradients[1].keys()
    for name, one in gradients[0].items():
        assert one.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], one, rtol=1e-4, atol=1e-6)
    for name, one in weights[0].items():
        torch.testing.assert_close(weights[1][name], one, rtol=0, atol=1e-4)
