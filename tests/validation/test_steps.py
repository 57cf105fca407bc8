"""Steps: a backend's own side of one is followed, a wrong step is not."""

import numpy as np
import pytest
import torch

from scaleport.models.base import Stage
from scaleport.tensor import TensorSpec
from scaleport.validation.bisection.divergence import Inner, first_divergence
from scaleport.validation.bisection.steps import own_choice, remark
from scaleport.validation.bisection.traced import Tensor, reference_tensors

GIVEN = np.array([0.5, -1e-7, 2.25], np.float32)
"""What PyTorch rounds down; the second lies a rounding error below 0."""


class Split(torch.nn.Module):
    """Whole number and fraction, as a sampler takes them."""

    def forward(self, x):
        shifted = x * 1.0
        whole = torch.floor(shifted)
        return (shifted - whole) + whole


def reference():
    return {
        "mul": Tensor("", "mul", GIVEN),
        "floor": Tensor("", "floor", np.floor(GIVEN), "mul"),
    }


def compared(given, made):
    values = [Inner("mul", "Mul", given), Inner("floor", "Floor", made)]
    return first_divergence("render", values, reference(), 1e-4), values


def test_a_step_taken_rightly_is_followed():
    there = np.array([0.5, 0.0, 2.25], np.float32)
    result, values = compared(there, np.floor(there))
    assert result.divergence.tensor == "floor"
    chosen = own_choice(result, values, reference())
    assert chosen.tolist() == [0, 0, 2]
    assert "1 of 3 values" in remark("floor", chosen, np.floor(GIVEN))


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (GIVEN, np.ceil(GIVEN)),
        (GIVEN, np.round(GIVEN + 0.5)),
        (GIVEN.astype(np.float32), np.floor(GIVEN)[:2]),
        (GIVEN + 1, np.floor(GIVEN) + 1),
    ],
    ids=["rounded up", "rounded to nearest", "another shape", "the input is wrong"],
)
def test_a_wrong_step_is_a_divergence(given, made):
    result, values = compared(given, made)
    assert result.divergence is not None
    assert own_choice(result, values, reference()) is None


def test_other_operations_are_not_steps():
    known = {"mul": Tensor("", "mul", GIVEN), "add": Tensor("", "add", GIVEN, "mul")}
    values = [Inner("mul", "Mul", GIVEN), Inner("add", "Add", GIVEN + 1)]
    result = first_divergence("render", values, known, 1e-4)
    assert own_choice(result, values, known) is None
    clean = first_divergence("render", values[:1], known, 1e-4)
    assert own_choice(clean, values, known) is None


def test_pytorch_goes_on_from_the_choice():
    stage = Stage(
        "render",
        Split(),
        (TensorSpec("x", "float32", ("n",)),),
        (TensorSpec("y", "float32", ("n",)),),
    )
    program = torch.export.export(stage.module, (torch.from_numpy(GIVEN),))
    plain = reference_tensors(program, stage, stage, {"x": GIVEN})
    assert plain["floor"].source == "mul"
    assert plain["floor"].value.tolist() == [0, -1, 2]
    chosen = {"floor": np.array([0, 0, 2], np.float32)}
    followed = reference_tensors(program, stage, stage, {"x": GIVEN}, chosen)
    assert followed["floor"].value.tolist() == [0, 0, 2]
    assert followed["sub"].value[1] == pytest.approx(-1e-7)
    assert plain["sub"].value[1] == pytest.approx(1)
    np.testing.assert_allclose(followed["y"].value, plain["y"].value, atol=1e-6)
