"""Gates: what passes, what does not, and judging stored results again."""

from __future__ import annotations

import math

import pytest
from validation_samples import parity, result

from scaleport.errors import UsageError
from scaleport.validation.parity.cases import REFUSED
from scaleport.validation.parity.gates import NOT_RUN, Gate, Gates, judge, not_run, passed, rejudge


def test_default_gates():
    assert Gates().limits() == {"fp32": {"max_abs": 1e-4, "psnr": 80.0}, "fp16": {"psnr": 55.0}}


@pytest.mark.parametrize(
    ("max_abs", "psnr", "words"),
    [
        (1e-4, 80.0, ""),
        (1.1e-4, 90.0, "max abs 1.10e-04 over 1.00e-04"),
        (1e-5, 79.9, "PSNR 79.9 dB under 80.0 dB"),
        (1.0, 3.0, "max abs 1.00e+00 over 1.00e-04, PSNR 3.0 dB under 80.0 dB"),
        (math.nan, 90.0, "max abs nan over 1.00e-04"),
        (1e-5, math.nan, "PSNR nan dB under 80.0 dB"),
        (0.0, math.inf, ""),
    ],
)
def test_failure_says_what_is_outside(max_abs, psnr, words):
    assert Gates().fp32.failure(max_abs, psnr) == words


def test_float16_has_no_limit_of_single_samples():
    assert Gates().fp16.failure(0.5, 55.0) == ""
    assert Gates().fp16.failure(0.5, 54.9) != ""


@pytest.mark.parametrize("limits", [(math.nan, 80.0), (1e-4, math.nan), (-1e-9, 80.0)])
def test_gates_that_make_no_sense(limits):
    with pytest.raises(UsageError, match="a gate needs"):
        Gate(*limits)


def test_other_precisions_have_no_gate():
    with pytest.raises(UsageError, match="no parity gate for precision 'int8'; known: fp32, fp16"):
        Gates().of("int8")


def test_judge_overrules_the_stored_verdict():
    assert not judge(result(max_abs=1e-3, passed=True), Gates()).passed
    assert judge(result(passed=False, note="old"), Gates()) == result()
    bad = judge(result(psnr=60.0), Gates())
    assert (bad.passed, bad.note) == (False, "PSNR 60.0 dB under 80.0 dB")


def test_equal_images_need_no_psnr_and_others_do():
    assert judge(result(max_abs=0.0, psnr=None, passed=False), Gates()).passed
    assert not judge(result(max_abs=1e-9, psnr=None, passed=True), Gates()).passed


def test_results_without_a_measurement_keep_their_verdict():
    wide = Gates(fp32=Gate(), fp16=Gate())
    failed = result(max_abs=None, psnr=None, passed=False, note="boom")
    refused = result(max_abs=None, psnr=None, passed=True, note=REFUSED)
    assert judge(failed, wide) == failed
    assert judge(refused, Gates(fp32=Gate(0.0))) == refused


def test_rejudge_with_other_gates():
    stored = parity(result(), result(precision="fp16", max_abs=2e-3, psnr=60.0))
    assert passed(rejudge(stored, Gates()))
    strict = rejudge(stored, Gates(fp16=Gate(psnr=70.0)))
    assert [r.passed for r in strict.results] == [True, False]
    assert strict.gates["fp16"] == {"psnr": 70.0}
    assert rejudge(strict, Gates()) == rejudge(stored, Gates())


def test_nothing_compared_is_no_pass():
    refused = result(max_abs=None, psnr=None, note=REFUSED)
    assert not passed(parity())
    assert not passed(parity(refused))
    assert passed(parity(refused, result()))
    assert not passed(parity(refused, result(passed=False)))


def test_what_was_left_out():
    some = parity(result(), device={"onnxruntime": "CPU", "tensorrt": NOT_RUN + "no GPU"})
    assert not_run(some) == {"tensorrt": "no GPU"}
