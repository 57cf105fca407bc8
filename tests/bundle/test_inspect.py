"""What ``inspect`` says of a bundle that no graph has to run for."""

from __future__ import annotations

import json

import msgspec
import pytest

from scaleport.bundle.manifest import Parity, ParityResult
from scaleport.bundle.reader import read_manifest
from scaleport.bundle.writer import update_manifest
from scaleport.cli.main import main
from scaleport.runtimes.coreml import EVALUATOR

REMARK = "evaluated, not run on Apple hardware"


@pytest.mark.parametrize(
    ("device", "remark"), [(EVALUATOR, REMARK), ("Core ML, macOS 15.1, ALL", "")]
)
def test_core_ml_that_was_only_evaluated_is_said_to_be(bundle, capsys, device, remark):
    results = tuple(
        ParityResult(
            backend=backend,
            precision="fp32",
            shape=(15, 21),
            shape_name="odd",
            scale=(2.0, 2.0),
            mode="staged",
            max_abs=1e-6,
            psnr=120.0,
            passed=True,
        )
        for backend in ("onnxruntime", "coreml")
    )
    devices = {"onnxruntime": "CPU", "coreml": device}
    parity = Parity(
        gates={"fp32": {"psnr": 80.0}}, device=devices, tool_versions={}, results=results
    )
    update_manifest(bundle, msgspec.structs.replace(read_manifest(bundle), parity=parity))
    assert main(["inspect", str(bundle)]) == 0
    said = {
        line.split()[0]: line for line in capsys.readouterr().out.splitlines() if " 1 of 1 " in line
    }
    assert said["coreml"].endswith(remark or "120")
    assert said["onnxruntime"].endswith("120")
    assert main(["inspect", str(bundle), "--json"]) == 0
    told = {p["backend"]: p["remark"] for p in json.loads(capsys.readouterr().out)["parity"]}
    assert told == {"onnxruntime": "", "coreml": remark}
