"""Every operation of the MIL evaluator against PyTorch, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

pytest.importorskip("coremltools")

import coremltools as ct
import mil_cases_compute
import mil_cases_elementwise
import mil_cases_shape
from coremltools.converters.mil.mil import Builder, types
from mil_inputs import FEEDS, normal

from scaleport.errors import (
    ArtifactError,
    BackendError,
    ScaleportError,
    UnsupportedOpError,
    UsageError,
)
from scaleport.mil import Evaluator, Operation, read_program
from scaleport.mil.call import OPERATIONS, Call

CASES = mil_cases_elementwise.CASES | mil_cases_shape.CASES | mil_cases_compute.CASES
HALF = {f"{name}:half": case for name, case in mil_cases_compute.HALF_CASES.items()}
ALL = CASES | HALF


def _label(name):
    return "out_" + name.replace(":", "_").replace("-", "_")


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """One program with every case as an output, written by coremltools."""

    # The builder reads the names of the inputs from the function's signature.
    def main(image, small, positive, line, left, right, points, index, whole, along):
        tensors = (image, small, positive, line, left, right, points, index, whole, along)
        inputs = {tensor.name: tensor for tensor in tensors}
        results = []
        for name, (build, _) in ALL.items():
            value = build(inputs)
            if name.endswith(":half"):
                value = Builder.cast(x=value, dtype="fp32")
            results.append(Builder.identity(x=value, name=_label(name)))
        return tuple(results)

    kinds = {"float32": types.fp32, "int32": types.int32}
    specs = [Builder.TensorSpec(v.shape, kinds[v.dtype.name]) for v in FEEDS.values()]
    model = ct.convert(
        Builder.program(input_specs=specs, opset_version=ct.target.iOS17)(main),
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    path = tmp_path_factory.mktemp("mil") / "all.mlpackage"
    model.save(str(path))
    return path


@pytest.fixture(scope="session")
def results(package):
    return Evaluator(read_program(package)).run(FEEDS)


@pytest.mark.parametrize("name", ALL)
def test_operation_equals_torch(name, package, results):
    tensors = {key: torch.from_numpy(value) for key, value in FEEDS.items()}
    want = ALL[name][1](tensors).numpy()
    got = results[_label(name)]
    assert got.shape == want.shape
    if want.dtype == np.int32:
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, want)
    elif name.endswith(":half"):
        # One step of float16 apart at most: the order of float32 sums may decide a rounding.
        np.testing.assert_allclose(got, want.astype(np.float32), rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(got, got.astype(np.float16).astype(np.float32))
    else:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_every_known_operation_has_a_case(package):
    kinds = {operation.kind for operation in read_program(package).operations}
    assert kinds >= {name.split(":")[0] for name in ALL}
    # Attention exists from iOS18 on, this program is one of iOS17; quantised weights are constants.
    special = {"scaled_dot_product_attention", "constexpr_affine_dequantize"}
    assert set(OPERATIONS) - kinds == special


@pytest.mark.parametrize("axis", [0, 1])
def test_a_quantised_weight_is_its_steps_times_its_scale(axis):
    data = np.random.default_rng(0).integers(-128, 128, (3, 4, 2), np.int8)
    scale = np.linspace(0.01, 0.5, data.shape[axis]).astype(np.float32)
    zero = np.arange(data.shape[axis], dtype=np.int8) - 1
    call = Call(Operation("constexpr_affine_dequantize", {}, ()), {})
    call._values = {
        "quantized_data": data,
        "scale": scale,
        "zero_point": zero,
        "axis": np.int32(axis),
    }
    made = OPERATIONS["constexpr_affine_dequantize"](call)
    for i, (step, offset) in enumerate(zip(scale, zero, strict=True)):
        want = step * (data.take(i, axis).astype(np.float64) - offset)
        np.testing.assert_allclose(made.take(i, axis), want, rtol=1e-6)


def test_attention_equals_torch():
    q, k, v = (normal(2, 3, n, 8) for n in (5, 7, 7))
    mask = normal(5, 7)
    call = Call(Operation("scaled_dot_product_attention", {}, ()), {})
    call._values = {"query": q, "key": k, "value": v, "attn_mask": mask}
    want = F.scaled_dot_product_attention(*(torch.from_numpy(x) for x in (q, k, v, mask)))
    np.testing.assert_allclose(OPERATIONS[call.operation.kind](call), want.numpy(), atol=1e-6)


def test_intermediate_values_are_freed(package):
    evaluator = Evaluator(read_program(package))
    alive = dict.fromkeys(FEEDS)
    peak = 0
    for operation, dead in zip(evaluator.program.operations, evaluator._dead, strict=True):
        alive |= dict.fromkeys(name for name, _ in operation.outputs)
        peak = max(peak, len(alive))
        for name in dead:
            del alive[name]
    assert set(alive) == set(evaluator.program.outputs)
    assert peak <= len(FEEDS) + len(ALL) + 4


def test_unknown_operation_is_named_at_load(package):
    program = read_program(package)
    strange = dataclasses.replace(program.operations[0], kind="quantum_fold")
    with pytest.raises(UnsupportedOpError, match="quantum_fold"):
        Evaluator(dataclasses.replace(program, operations=(strange, *program.operations[1:])))


def test_result_of_another_type_than_declared_is_refused(package):
    program = read_program(package)
    first = next(o for o in program.operations if o.kind == "abs")
    name, declared = first.outputs[0]
    wrong = dataclasses.replace(declared, dtype=np.dtype(np.float16))
    broken = dataclasses.replace(first, outputs=((name, wrong),))
    with pytest.raises(ArtifactError, match=r"abs .* gives float32"):
        Evaluator(dataclasses.replace(program, operations=(broken,), outputs={})).run(FEEDS)


def test_index_outside_is_a_backend_error(package):
    feeds = FEEDS | {"index": np.array([3, 0, 99, 5], np.int32)}
    with pytest.raises(BackendError, match="gather"):
        Evaluator(read_program(package)).run(feeds)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"image": FEEDS["image"].astype(np.float64)}, "must be float32"),
        ({"image": FEEDS["image"][0]}, "must have shape"),
        ({"stranger": FEEDS["image"]}, "stranger"),
        ({"image": None}, "image"),
    ],
)
def test_wrong_feeds_are_usage_errors(package, feeds, words):
    given = {k: v for k, v in (FEEDS | feeds).items() if v is not None}
    with pytest.raises(UsageError, match=words) as caught:
        Evaluator(read_program(package)).run(given)
    assert "\n" not in str(caught.value)


def _rewrite_manifest(path, change):
    file = path / "Manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def _escape(manifest):
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = "../../outside"


DATA = Path("Data/com.apple.CoreML")
DAMAGES = {
    "no manifest": lambda p: (p / "Manifest.json").unlink(),
    "manifest is no json": lambda p: (p / "Manifest.json").write_text("{"),
    "manifest is a list": lambda p: (p / "Manifest.json").write_text("[]"),
    "manifest has no root": lambda p: _rewrite_manifest(p, lambda m: m.pop("rootModelIdentifier")),
    "model outside": lambda p: _rewrite_manifest(p, _escape),
    "no model": lambda p: (p / DATA / "model.mlmodel").unlink(),
    "model is noise": lambda p: (p / DATA / "model.mlmodel").write_bytes(b"\xff" * 99),
    "model is empty": lambda p: (p / DATA / "model.mlmodel").write_bytes(b""),
    "model is cut off": lambda p: (p / DATA / "model.mlmodel").write_bytes(
        (p / DATA / "model.mlmodel").read_bytes()[:-100]
    ),
    "no weights": lambda p: shutil.rmtree(p / DATA / "weights"),
    "weights are cut off": lambda p: (p / DATA / "weights/weight.bin").write_bytes(
        (p / DATA / "weights/weight.bin").read_bytes()[:-200]
    ),
    "weights are noise": lambda p: (p / DATA / "weights/weight.bin").write_bytes(b"\1" * 9999),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_package(damage, package, tmp_path):
    copy = Path(shutil.copytree(package, tmp_path / "copy.mlpackage"))
    DAMAGES[damage](copy)
    with pytest.raises(ArtifactError):
        read_program(copy)


def test_altered_bytes_never_crash_the_reader(package, tmp_path):
    copy = Path(shutil.copytree(package, tmp_path / "copy.mlpackage"))
    file = copy / DATA / "model.mlmodel"
    original = file.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        data = bytearray(original)
        for place in random.integers(0, len(data), 4):
            data[place] = random.integers(256)
        file.write_bytes(bytes(data))
        try:
            Evaluator(read_program(copy))
        except ScaleportError:
            refused += 1
    assert refused > 0


def test_reading_needs_neither_torch_nor_coremltools_itself(package):
    script = (
        "import sys; from pathlib import Path\n"
        "from scaleport.runtimes.coreml import CoreMLBackend\n"
        "from scaleport.mil import Evaluator, read_program\n"
        f"Evaluator(read_program(Path({str(package)!r})))\n"
        "assert CoreMLBackend().availability().version\n"
        "found = {'torch', 'coremltools', 'sympy'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
