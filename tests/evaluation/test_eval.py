import csv
import io
import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import scaleport  # noqa: E402
from scaleport.cli.main import main  # noqa: E402
from scaleport.errors import BackendError, ImageError, UsageError  # noqa: E402
from scaleport.evaluation.degrade import parse_degradation  # noqa: E402
from scaleport.evaluation.metrics import METRICS, find_metrics  # noqa: E402
from scaleport.evaluation.protocols import PROTOCOLS  # noqa: E402
from scaleport.evaluation.run import find_sets, score  # noqa: E402
from scaleport.evaluation.subjects import Subject, from_checkpoint, open_subject  # noqa: E402
from scaleport.models import load_checkpoint  # noqa: E402

WEIGHTS = Path(scaleport.__file__).parent / "weights"
GAINS = {2.0: 1.5, 2.7: 0.0, 3.0: 1.2, 4.0: 1.0, 6.0: 0.0}
PSNR = [METRICS["psnr"]]


@pytest.fixture
def run(capfd):
    def run(line):
        capfd.readouterr()
        code = main(shlex.split(line))
        return code, *capfd.readouterr()

    return run


def scores_of(out):
    return {(r["set"], r["scale"], r["method"]): r["psnr"] for r in json.loads(out)["scores"]}


def test_every_backend_scores_alike(run, bench, tiny_bundle, tiny_checkpoint, tmp_path):
    line = f"--data {bench} --scale 2 2.7 3 --json"
    code, out, err = run(f"eval {tiny_checkpoint('igconv')} {line} --csv {tmp_path}/s.csv")
    assert (code, err) == (0, "")
    reference = scores_of(out)
    assert {key[:2] for key in reference} == {
        (name, scale) for name in ("Own", "Other") for scale in (2, 2.7, 3)
    }
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(reference)
    for row in rows:
        key = (row["set"], float(row["scale"]), row["method"])
        assert float(row["psnr"]) == pytest.approx(reference[key], abs=1e-4)
        assert 0 <= float(row["ssim"]) <= 1
    code, out, err = run(f"eval {tiny_bundle('igconv')} {line} --backend onnxruntime")
    assert (code, err) == (0, "")
    assert json.loads(out)["backend"] == "onnxruntime"
    bundle = scores_of(out)
    assert sorted(bundle.values()) == pytest.approx(sorted(reference.values()), abs=1e-3)


def test_scales_out_of_range_have_a_bicubic_row(run, bench, tiny_checkpoint):
    checkpoint = tiny_checkpoint("igconv")
    high = load_checkpoint(checkpoint).limits.max
    code, out, err = run(f"eval {checkpoint} --data {bench}/Own -s 2,{high + 1} --metric psnr")
    assert code == 0
    assert err.startswith(f"note: x{high + 1:g}: bicubic only, ") and err.count("\n") == 1
    lines = [line for line in out.splitlines() if f"x{high + 1:g}" in line]
    assert len(lines) == 1 and "bicubic" in lines[0]


def test_gray_images_go_in_as_three_equal_channels(tiny_checkpoint):
    subject = from_checkpoint(tiny_checkpoint("igconv"))
    gray = np.random.default_rng(0).integers(0, 256, (6, 7), dtype=np.uint8)
    out = subject.render(gray, 12, 14)
    rgb = subject.render(np.repeat(gray[..., None], 3, axis=2), 12, 14)
    np.testing.assert_allclose(out, rgb.mean(axis=2), atol=1e-3)


@pytest.mark.parametrize(
    ("line", "code", "word"),
    [
        ("eval {model} --data none", 2, "no such folder"),
        ("eval {model} --data {bench}/empty", 2, "no images"),
        ("eval {model} --data {bench} --set Set5", 2, "there: Other, Own"),
        ("eval {model} --data {bench} --protocol best", 2, "basicsr-y"),
        ("eval {model} --data {bench} --metric vmaf", 2, "psnr, ssim, lpips"),
        ("eval {model} --data {bench} --scale 0.5", 2, "from 1"),
        ("eval {model} --data {bench} --scale two", 2, "one checkpoint|number from 1"),
        ("eval --data {bench} --scale 2 3", 2, "one checkpoint"),
        ("eval nothing --data {bench}", 2, "shipped"),
        ("eval {model} --data {bench} --backend openvino", 2, "export it"),
        ("eval {model} --data {bench} --csv none/s.csv", 2, "cannot write"),
    ],
)
def test_errors_are_one_line(run, bench, tiny_checkpoint, line, code, word):
    (bench / "empty").mkdir()
    got, out, err = run(line.format(model=tiny_checkpoint("igconv"), bench=bench))
    assert (got, out) == (code, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert any(part in err for part in word.split("|"))


def test_unreadable_image(bench):
    (bench / "Own/a.png").write_bytes(b"text")
    nearest = Subject("nearest", "", "", "", (1, 9), lambda lr, h, w: np.zeros((h, w, 3)))
    with pytest.raises(ImageError, match=r"a\.png"):
        score(find_sets(bench, ["Own"]), [2], [nearest], PROTOCOLS["basicsr-y"], PSNR)


def test_missing_metrics_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.metrics", None)
    with pytest.raises(BackendError, match=r"pip install 'scaleport\[eval\]'"):
        find_metrics(("ssim",))
    with pytest.raises(UsageError, match="known: psnr"):
        find_metrics(())


def test_lpips_says_what_it_misses(monkeypatch):
    """Without torchvision, or without its weights and a network."""
    functional = pytest.importorskip("torchmetrics.functional.image")

    def unreachable(*arguments):
        raise OSError("<urlopen error no network>")

    name = "learned_perceptual_image_patch_similarity"
    monkeypatch.setattr(functional, name, unreachable, raising=False)
    with pytest.raises(BackendError, match="weights"):
        find_metrics(("lpips",))

    def absent(*arguments):
        raise ModuleNotFoundError("No module named 'torchvision'")

    monkeypatch.setattr(functional, name, absent, raising=False)
    with pytest.raises(BackendError, match="pip install torchvision"):
        find_metrics(("lpips",))


@pytest.mark.parametrize(
    "name",
    [
        "igconv-small",
        "liif-small",
        "scaleport-s",
        "scaleport-m",
        "scaleport-any",
        "scaleport-photo",
    ],
)
def test_shipped_weights_beat_bicubic(name):
    """Set5, all five images, at every scale that the network declares."""
    folder = os.environ.get("SCALEPORT_DATA")
    if not folder:
        pytest.skip("SCALEPORT_DATA does not name the image folder")
    subject = open_subject(name)
    sets = find_sets(Path(folder) / "bench", ["Set5"])
    from scaleport.evaluation.subjects import bicubic

    scores = score(sets, list(GAINS), [bicubic(), subject], PROTOCOLS["basicsr-y"], PSNR)
    values = {(row.scale, row.subject): row.values["psnr"] for row in scores}
    scored = [scale for scale, subject in values if subject == name]
    assert scored == [scale for scale in GAINS if scale <= subject.scales[1]]
    for scale in scored:
        assert values[scale, name] >= values[scale, "bicubic"] + GAINS[scale], scale


def test_shipped_weights_are_small_and_documented():
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert {f.stem for f in files} >= {"igconv-small", "liif-small"}
    assert sum(f.stat().st_size for f in files) < 40_000_000
    for file in files:
        card = file.with_suffix(".md").read_text(encoding="utf-8")
        assert "Apache-2.0" in card
        assert str(load_checkpoint(file).parameter_count()) in card.replace(" ", "")


def test_lr_is_degraded_before_it_is_upscaled(run, bench):
    """What a subject sees is JPEG's picture of LR, and noise of the strength that was asked for."""
    seen = []

    def look(lr, height, width):
        seen.append(lr)
        return np.zeros((height, width, *lr.shape[2:]))

    subject = Subject("look", "numpy", "fp32", "CPU", (1, 4), look)
    sets = find_sets(bench)
    rules = PROTOCOLS["basicsr-y"]
    score(sets, [2], [subject], rules, PSNR)
    clean, seen = seen, []
    score(sets, [2], [subject], rules, PSNR, degradation=parse_degradation(["jpeg:30"]))
    for lr, coded in zip(clean, seen, strict=True):
        stream = io.BytesIO()
        Image.fromarray(lr).save(stream, "JPEG", quality=30)
        assert np.array_equal(coded, np.asarray(Image.open(stream)))
    seen.clear()
    noise = parse_degradation(["noise:8"])
    score(sets, [2], [subject], rules, PSNR, degradation=noise)
    first = [lr.copy() for lr in seen]
    # Away from black and white, where noise is cut off.
    spread = [
        (noisy - lr.astype(float))[(lr > 40) & (lr < 215)]
        for lr, noisy in zip(clean, seen, strict=True)
    ]
    assert np.concatenate(spread).std() == pytest.approx(8, rel=0.15)
    seen.clear()
    score(sets, [2], [subject], rules, PSNR, degradation=noise)
    assert all(np.array_equal(a, b) for a, b in zip(first, seen, strict=True))


def test_degradations_on_the_command_line(run, bench, tiny_checkpoint):
    line = f"eval {tiny_checkpoint('igconv')} --data {bench} --scale 2 --metric psnr --json"
    clean = scores_of(run(line)[1])
    code, out, err = run(f"{line} --degrade noise:20,jpeg:20")
    assert (code, err) == (0, "")
    assert json.loads(out)["degrade"] == ["noise:20", "jpeg:20"]
    degraded = scores_of(out)
    for name in ("Own", "Other"):
        assert degraded[name, 2, "bicubic"] < clean[name, 2, "bicubic"] - 0.5
    for wrong, reason in (
        ("mpeg:3", "known: jpeg, webp, noise"),
        ("jpeg", "1 to 100 (quality)"),
        ("jpeg:101", "1 to 100 (quality)"),
        ("jpeg:7.5", "whole number"),
        ("noise:-1", "0 to 128"),
    ):
        code, _, err = run(f"{line} --degrade {wrong}")
        assert code == 2 and reason in err, err


def test_every_second_image(bench):
    whole, some = find_sets(bench), find_sets(bench, every=2)
    for one, other in zip(whole, some, strict=True):
        assert other.files == one.files[::2]
