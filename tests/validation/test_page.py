"""The report page: whole, without references to elsewhere, and safe against what it shows."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from validation_samples import manifest, parity, result

from scaleport.atomic import write_text
from scaleport.cli.main import main
from scaleport.errors import OutputError
from scaleport.models.network import build_network
from scaleport.runtimes.coreml import EVALUATOR
from scaleport.validation.parity.gates import NOT_RUN
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import validate
from scaleport.validation.report.evidence import _worst_of, gather, worst_case
from scaleport.validation.report.page import check_place, render_page, worst_first
from scaleport.validation.report.raster import data_uri, error_map, to_pixels

VOID = {"meta", "img", "br", "link", "input", "hr"}
ADDRESSES = ("src", "href", "srcset", "action", "data", "poster", "formaction", "background")


class Page(HTMLParser):
    """Collects what a page holds, and whether its tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.ids, self.links = [], [], [], set(), []
        self.rows, self.words = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        held = dict(attrs)
        assert not any(name.startswith("on") for name in held)
        self.addresses += [(tag, held[name]) for name in ADDRESSES if name in held]
        if "id" in held:
            assert held["id"] not in self.ids
            self.ids.add(held["id"])
        if held.get("class", "") == "case":
            self.rows.append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.rows and data.strip() and "tr" in self.open:
            self.rows[-1].append(data.strip())


def many():
    results = [
        result(backend, precision=precision, scale=(scale, scale), psnr=ratio)
        for backend in ("onnxruntime", "openvino")
        for precision in ("fp32", "fp16")
        for scale, ratio in ((2.0, 120.0), (2.7, 101.5), (3.0, 99.0), (4.0, 118.0))
    ]
    failed = result(psnr=41.2, max_abs=0.2, passed=False, note="PSNR 41.2 dB under 80.0 dB")
    broken = result("openvino", max_abs=None, psnr=None, passed=False, note="it fell over")
    return (*results, failed, broken)


def test_holds_every_case_and_the_worst_first():
    results = many()
    page = Page(render_page(manifest(), parity(*results)))
    assert len(page.rows) == len(results) + 12
    text = " ".join(page.words)
    for row in (page.rows[0], page.rows[12]):
        assert "it fell over" in " ".join(row)
    assert "PSNR 41.2 dB under 80.0 dB" in " ".join(page.rows[1])
    assert "2 of 18 cases outside the gates" in text
    assert text.count("✗ failed") == 2  # the rows of the summary that hold them
    for scale in ("x2", "x2.7", "x3", "x4"):
        assert scale in text


def test_core_ml_has_its_remark_in_verdict_summary_matrix_and_environment():
    some = parity(result(), result("coreml"), device={"coreml": EVALUATOR, "onnxruntime": "CPU"})
    text = render_page(manifest(), some)
    remark = "evaluated, not run on Apple hardware"
    words = " ".join(" ".join(Page(text).words).split())
    assert f"all 2 cases within the gates; coreml {remark}" in words
    assert f"✓ passed; {remark}" in words
    matrix = words[words.index("Worst PSNR in dB over all") :]
    assert f"coreml {remark}" in matrix[: matrix.index("Pictures and speed")]
    assert f"coreml was evaluated by {EVALUATOR}" in words
    assert "coreml ran on" not in words


def test_order_of_cases():
    ordered = worst_first(many())
    assert [r.passed for r in ordered[:3]] == [False, False, True]
    assert ordered[0].max_abs is None
    assert [r.psnr for r in ordered[2:]] == sorted(r.psnr for r in ordered[2:])


def test_refers_to_nothing_outside_itself():
    text = render_page(manifest(), parity(*many()))
    page = Page(text)
    for tag, address in page.addresses:
        inside = address.startswith("data:image/png;base64,") or (
            tag == "a" and address.startswith("#") and address[1:] in page.ids
        )
        assert inside, (tag, address[:60])
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?:", text)


def test_has_both_colour_schemes_and_can_be_read_with_a_keyboard():
    text = render_page(manifest(), parity(*many()))
    assert "prefers-color-scheme: dark" in text
    assert text.count('role="region"') == text.count('tabindex="0"') == 4
    assert text.count("<table") == text.count("<caption") + 2  # facts are told by their headers
    assert all('alt="' in image for image in re.findall(r"<img[^>]*>", text))


HOSTILE = (
    "</td><script>alert(1)</script>\"'><img src=http://example.org/x onerror=alert(1)>{{ 7*7 }}"
)


def test_hostile_strings_are_shown_not_obeyed():
    bad = result(note=HOSTILE, passed=False)
    told = parity(bad, device={"onnxruntime": HOSTILE, "coreml": NOT_RUN + HOSTILE})
    model = manifest(
        license=HOSTILE, model={"encoder": {"name": HOSTILE}}, skipped={"tensorrt": HOSTILE}
    )
    page = Page(render_page(model, told))
    assert "script" not in page.tags
    assert all(a.startswith(("#", "data:")) for _, a in page.addresses)
    assert "".join(page.words).count(HOSTILE) >= 6


def test_reasons_end_in_one_full_stop():
    told = parity(
        result(), device={"onnxruntime": "CPU", "tensorrt": NOT_RUN + "No GPU (error 35)."}
    )
    assert "(error 35). It has passed nothing." in render_page(manifest(), told)


def test_captions_and_first_columns_stay_in_view():
    text = render_page(manifest(), parity(*many()))
    # A table that is wider than a telephone scrolls, and its caption would with it.
    assert text.count("<caption><span>") == text.count("<caption>") == 4
    assert re.search(r"caption span \{ position: sticky", text)
    assert not re.search(r"<tr[^>]*>(?!<th scope)", text)


def test_pictures_of_a_batch_show_its_worst_image():
    expected = np.zeros((2, 3, 4, 4), np.float32)
    found = expected.copy()
    found[0, 0, 1, 1], found[1, 2, 3, 0] = 0.1, 0.5
    image = np.stack([np.zeros((3, 2, 2), np.float32), np.ones((3, 2, 2), np.float32)])
    shown, there, _ = _worst_of(image, found, expected)
    assert shown.shape == (1, 3, 2, 2)
    assert shown.min() == 1
    assert there[0, 2, 3, 0] == np.float32(0.5)
    found[0, 1, 0, 0] = np.nan
    assert _worst_of(image, found, expected)[0].max() == 0


def test_writing(tmp_path):
    target = tmp_path / "r.html"
    write_text(target, "äöü")
    assert target.read_text("utf-8") == "äöü"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(OutputError, match="there is no directory"):
        check_place(tmp_path / "attic" / "r.html")
    with pytest.raises(OutputError, match="it is a directory"):
        check_place(tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "attic" / "r.html", "x")


def test_error_maps():
    expected = np.zeros((1, 3, 2, 2), np.float32)
    found = expected.copy()
    found[0, 1, 0, 1] = 1.0
    found[0, 2, 1, 0] = np.nan
    shown = error_map(found, expected)
    assert shown.shape == (2, 2, 3)
    assert shown[0, 0].sum() < 100 < 600 < shown[0, 1].sum()
    assert (shown[1, 0] == shown[0, 1]).all()
    assert (to_pixels(found)[0, 1] == [0, 255, 0]).all()
    assert data_uri(shown).startswith("data:image/png;base64,iVBOR")


@pytest.fixture(scope="module")
def bundle(torch_bundle):
    torch.manual_seed(4)
    encoder = {"name": "edsr", "width": 4, "blocks": 1}
    network = build_network({"encoder": encoder, "upsampler": {"name": "spconv", "scale": 2}})
    return torch_bundle(network)


def test_pictures_of_a_run(bundle):
    results = validate(bundle, ValidationOptions(["torch"], ["fp16"], "quick"))
    evidence = gather(bundle, results)
    (worst,), (sample,) = evidence.worst, evidence.sample
    expected = worst_case(results.results)
    assert worst.max_abs == pytest.approx(expected.max_abs, rel=1e-3)
    assert worst.psnr == pytest.approx(expected.psnr, abs=0.01)
    assert sample.milliseconds > 0
    page = Page(render_page(manifest(), results, evidence))
    assert sum(tag == "img" for tag, _ in page.addresses) == 1 + 2 * 4


def test_command_line(bundle, tmp_path, capsys):
    shutil.copytree(bundle, tmp_path / "own.bundle")
    own, target = str(tmp_path / "own.bundle"), tmp_path / "report.html"
    asked = ["validate", own, "--quick", "--backend", "torch", "--report", str(target), "--json"]
    assert main(asked) == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert len(Page(target.read_text("utf-8")).rows) == cases + 12
    # Judged again, harder: the page says so, and needs no graph.
    asked = ["validate", own, "--rejudge", "--gate-fp16-psnr", "500", "--report", str(target)]
    assert main(asked) == 1
    assert "outside the gates" in target.read_text("utf-8")
    assert main(["validate", own, "--rejudge", "--report", str(tmp_path)]) == 2
    assert "is a directory" in capsys.readouterr().err
