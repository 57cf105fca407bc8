"""The report: one row per way of running, the worst case by name, every failure."""

from __future__ import annotations

import io
import json
import math

from rich.console import Console
from validation_samples import parity, result

from scaleport.runtimes.coreml import EVALUATOR
from scaleport.validation.parity.cases import REFUSED
from scaleport.validation.parity.gates import NOT_RUN
from scaleport.validation.report.summary import (
    as_dict,
    describe,
    failures,
    render_table,
    scale_text,
    summarise,
    verdict,
)

GOOD = parity(
    result(),
    result(scale=(2.7, 2.7), shape_name="tall", max_abs=3e-6, psnr=110.0),
    result(mode="whole", max_abs=0.0, psnr=None),
    result("openvino", precision="fp16", max_abs=1e-3, psnr=70.0),
    result("openvino", max_abs=None, psnr=None, scale=(8.8, 8.8), note=REFUSED),
    device={"onnxruntime": "CPU", "openvino": "CPU", "tensorrt": NOT_RUN + "no GPU [here]"},
    tool_versions={"onnxruntime": "1.99"},
)
BAD = parity(
    result(),
    result(scale=(2.0, 3.5), max_abs=0.1, psnr=20.0, passed=False, note="max abs 1.00e-01 over"),
    result(mode="tiled", max_abs=None, psnr=None, passed=False, note="ValueError: boom"),
)


def printed(some, every_case=False, width=120):
    file = io.StringIO()
    render_table(some, Console(file=file, width=width), every_case)
    return file.getvalue()


def test_rows_hold_the_worst():
    first, whole, half, refused = summarise(GOOD)
    assert (first.backend, first.mode, first.cases, first.passed) == ("onnxruntime", "staged", 2, 2)
    assert (first.max_abs, first.psnr, first.where) == (3e-6, 110.0, "tall x2.7")
    assert whole.psnr == math.inf
    assert half.precision == "fp16"
    assert (refused.max_abs, refused.where, refused.ok) == (None, "", True)


def test_failures_and_verdict():
    assert failures(GOOD) == []
    assert verdict(GOOD) == "all 5 cases within the gates"
    assert verdict(BAD) == "2 of 3 cases outside the gates"
    assert verdict(parity()) == "nothing was compared"
    assert [r.mode for r in failures(BAD)] == ["staged", "tiled"]


def test_a_case_in_one_line():
    assert describe(GOOD.results[1]) == (
        "onnxruntime fp32 staged tall 15x21 x2.7: max abs 3.00e-06, PSNR 110.0 dB"
    )
    assert describe(BAD.results[1]).endswith("odd 15x21 x(2, 3.5): max abs 1.00e-01 over")
    assert describe(result(max_abs=None, psnr=None, passed=False)).endswith(": failed")


def test_table_of_a_good_bundle():
    text = printed(GOOD)
    assert "FAILED" not in text
    assert "tall x2.7" in text
    assert "ran onnxruntime 1.99 on CPU" in text
    assert "outside the range of the model, correctly refused: x8.8" in text
    assert "not run: tensorrt: no GPU [here]" in text
    assert "gate fp32: max abs at most 0.0001, PSNR at least 80 dB" in text
    assert text.splitlines()[-1] == "all 5 cases within the gates"


def test_table_of_a_bad_bundle():
    text = printed(BAD)
    assert text.count("FAILED") == 2
    assert "failed: onnxruntime fp32 staged odd 15x21 x(2, 3.5): max abs" in text
    assert "ValueError: boom" in text
    assert text.splitlines()[-1] == "2 of 3 cases outside the gates"


def test_many_failures_are_cut_unless_asked_for():
    many = parity(*[result(scale=(i, i), passed=False, note="bad") for i in range(1, 31)])
    assert printed(many).count("failed: onnx") == 20
    assert "and 10 more" in printed(many)
    assert printed(many, every_case=True).count("failed: onnx") == 30


def test_core_ml_is_never_said_to_have_passed_where_it_did_not_run():
    devices = {"coreml": EVALUATOR, "onnxruntime": "CPU"}
    some = parity(result(), result("coreml"), device=devices)
    native = parity(result("coreml"), device={"coreml": "Core ML, macOS 15.1, ALL"})
    remark = "evaluated, not run on Apple hardware"
    assert [row.remark for row in summarise(some)] == ["", remark]
    assert verdict(some) == f"all 2 cases within the gates; coreml {remark}"
    assert verdict(native) == "all 1 cases within the gates"
    lines = [line.rstrip() for line in printed(some).splitlines()]
    assert lines[2].endswith(" passed (evaluated)")
    assert lines[1].endswith(" passed")
    assert f"evaluated coreml on {EVALUATOR}" in lines
    assert "evaluated" not in printed(native)
    assert as_dict(some)["evaluated"] == {"coreml": remark}
    assert as_dict(some)["summary"][1]["remark"] == remark
    # A plan to run it that came to nothing is "not run", which is said already.
    assert verdict(parity(result(), device={"coreml": NOT_RUN + "none"})) == (
        "all 1 cases within the gates"
    )


def test_no_colour_codes_without_a_terminal():
    assert "\x1b" not in printed(BAD)


def test_json_holds_everything():
    told = json.loads(json.dumps(as_dict(GOOD), allow_nan=False))
    assert (told["passed"], told["cases"], told["failed"]) == (True, 5, 0)
    assert told["not_run"] == {"tensorrt": "no GPU [here]"}
    assert set(told["device"]) == {"onnxruntime", "openvino"}
    assert told["refused_scales"] == [[8.8, 8.8]]
    assert told["summary"][1]["psnr"] is None
    assert told["summary"][1]["max_abs"] == 0
    bad = as_dict(BAD)
    assert bad["failures"][1]["note"] == "ValueError: boom"
    assert not bad["passed"]


def test_scales_in_words():
    assert scale_text((2.7, 2.7)) == "x2.7"
    assert scale_text((math.pi, math.pi)) == "x3.142"
    assert scale_text((2.0, 3.5)) == "x(2, 3.5)"
