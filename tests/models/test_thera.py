"""Thera against its equations, its forms against each other, and its files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
import torch
from authors import vary
from authors_thera import FlaxConvNeXt, FlaxEdsr, FlaxRdn, FlaxSwin, heat_field, pickled, thera

from scaleport.errors import ArtifactError, UsageError
from scaleport.grid import Grid
from scaleport.models import ENCODERS, UPSAMPLERS
from scaleport.models.importers import import_file

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 8, "blocks": 1},
    # More waves than are summed in one step, and no multiple of them.
    "upsampler": {"name": "thera", "waves": 70},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
}
BASE = CONFIG["encoder"]
PLUS = {"name": "refined-convnext", "base": BASE, "stages": [[8, 1], [12, 2]]}
PRO = {"name": "refined-swin", "base": BASE, "width": 12, "depths": [2], "heads": 2}


def built(encoder: str, size: str) -> Any:
    base = FlaxEdsr(8, 2) if encoder == "edsr" else FlaxRdn(8, 2, 3, 5)
    refine = {
        "air": lambda: None,
        "plus": lambda: FlaxConvNeXt([(8, 2), (12, 1)]),
        "pro": lambda: FlaxSwin(8, 12, [3, 2], 2, 8),
    }[size]()
    network = thera(base, refine, 12 if size == "plus" else 8, 6)
    components = network.components.detach().clone()
    vary(network)
    with torch.no_grad():
        network.components.copy_(components)
        network.k.fill_(0.06)
    return network


@pytest.mark.parametrize("size", ["air", "plus", "pro"])
@pytest.mark.parametrize("encoder", ["edsr", "rdn"])
@torch.no_grad()
def test_a_file_against_the_published_forward_pass(encoder: str, size: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = built(encoder, size)
    pickled(network, tmp_path / "model.pkl", backbone=encoder, size=size)
    found = import_file(tmp_path / "model.pkl")
    assert found.title == f"{encoder.upper()}-Thera-{size.capitalize()}"
    assert found.unused == {}
    ours, run = found.network.double(), heat_field(network.double())
    # Whole windows and not; x1.5, where pixels lie half-way between two fields; unequal scales.
    cases = [((7, 9), (14, 18)), ((8, 16), (25, 50)), ((6, 10), (9, 15)), ((9, 6), (9, 23))]
    for (height, width), out in cases:
        image = torch.rand(1, 3, height, width, dtype=torch.float64)
        want = run(image, out)
        got = ours(image, Grid.from_size(height, width, *out))
        assert want.std() > 0.05
        # Offsets of the grid are float32.
        assert (got - want).abs().max() <= 1e-5 * max(1.0, float(want.abs().max()))


def test_parameter_counts() -> None:
    """Those of the paper's table, beyond the encoder: 8.4 k, 1.41 M, 4.63 M."""
    air = UPSAMPLERS.create("thera", {"waves": 32}, in_channels=64)
    assert forms.count(air) == 64 * 128 + 128 + 2 * 32 + 1 == 8385
    sizes = {"refined-convnext": 1_413_153, "refined-swin": 4_630_699}
    for name, count in sizes.items():
        encoder = ENCODERS.create(name, {})
        field = UPSAMPLERS.create("thera", {}, in_channels=encoder.out_channels)
        assert forms.count(encoder) + forms.count(field) - forms.count(encoder.base) == count


@pytest.mark.parametrize("encoder", [BASE, PLUS, PRO], ids=["air", "plus", "pro"])
def test_deploy_form_is_the_training_form(encoder: dict[str, Any]) -> None:
    scales = (*forms.SCALES, 1, 1.5, 30) if encoder is BASE else (2, 2.7)
    forms.check_forms({**CONFIG, "encoder": encoder}, scales=scales)
    forms.check_forms({**CONFIG, "encoder": encoder}, size=(1, 2), scales=(3,))


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 7])
@torch.no_grad()
def test_an_integer_scale_is_one_product(scale: int) -> None:
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 5e-6)):
        network = forms.make(CONFIG).to(dtype)
        assert isinstance(network.upsampler.diffusivity, torch.nn.Parameter)
        network.upsampler.diffusivity.fill_(0.06)
        form = network.deploy(dtype)
        stage = form.stage(f"render_x{scale}")
        assert stage is not None
        image = torch.rand(2, 3, 7, 5, dtype=dtype)
        want = network(image, Grid.from_scale(7, 5, scale))
        got = stage.module(*form.encode.module(image))
        # Offsets of the grid are float32, and waves have up to 50 radians per LR pixel.
        assert (got - want).abs().max().item() <= limit


@torch.no_grad()
def test_waves_fade_at_smaller_scales() -> None:
    """A flat image's detail is what is left of the waves, which only the scale can take away."""
    network = forms.make(CONFIG, vary=False)
    image = torch.full((1, 3, 8, 8), 0.5)
    detail = [float(network(image, Grid.from_scale(8, 8, scale)).std()) for scale in (8, 4, 2, 1)]
    assert detail == sorted(detail, reverse=True)
    assert detail[-1] < 0.7 * detail[0]


class Other:
    """What an optimiser leaves in a file."""

    def __init__(self) -> None:
        self.count = 3


def test_what_else_a_file_holds_is_not_looked_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = built("edsr", "air")
    pickled(network, tmp_path / "a.pkl", optimizer=[Other(), (Other(), {"a": Other()})])
    assert import_file(tmp_path / "a.pkl").title == "EDSR-Thera-Air"

    class Evil:
        def __reduce__(self) -> Any:
            return (tmp_path / "ran").write_text, ("ran",)

    pickled(network, tmp_path / "b.pkl", optimizer=Evil())
    import_file(tmp_path / "b.pkl")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"model": {"params": {"k": Evil()}}}))
    with pytest.raises(ArtifactError, match="its entry k is no array"):
        import_file(tmp_path / "c.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (3, "no weights by name"),
        ({"model": {}}, "no weights by name"),
        ({"model": {"a": {"kernel": np.zeros(3, np.float32)}}}, "no known layer"),
        ({"model": {"a": np.zeros(3, np.int32)}}, "no array of floating-point"),
        ({"model": {"a": np.array([{}])}}, "no array of floating-point"),
        ({"model": {"a": np.zeros(3, np.float32)}}, "no known layout"),
    ],
)
def test_pickles_of_something_else(content: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ArtifactError, match=words):
        import_file(tmp_path / "a.pkl")


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)

    def refused(change: Callable[[Any], None], size: str = "air") -> str:
        network = built("edsr", size)
        change(network)
        pickled(network, tmp_path / "a.pkl")
        with pytest.raises(ArtifactError) as error:
            import_file(tmp_path / "a.pkl")
        return str(error.value)

    def fewer(network: Any) -> None:
        network.components = torch.nn.Parameter(torch.zeros(2, 5))

    assert "fields of 5 waves" in refused(fewer)
    assert "missing are k" in refused(lambda network: delattr(network, "k"))
    assert "no known kind" in refused(lambda n: delattr(n.refine, "Conv_0"), "pro")
    (tmp_path / "b.pkl").write_bytes(b"\x80\x04no")
    with pytest.raises(ArtifactError, match="no pickle of arrays"):
        import_file(tmp_path / "b.pkl")
    with pytest.raises(ArtifactError, match="cannot read"):
        import_file(tmp_path / "c.pkl")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("refined-convnext", {"stages": []}, "needs stages"),
        ("refined-convnext", {"stages": [[64, 0]]}, "needs stages"),
        ("refined-convnext", {"stages": [[32, 1]]}, "64 channels, not 32"),
        ("refined-convnext", {"base": {"width": 8}}, "needs base.name"),
        ("refined-convnext", {"base": {"name": "swinir"}}, "not swinir"),
        ("refined-swin", {"base": {"name": "nothing"}}, "unknown encoder"),
        ("refined-swin", {"window": 7}, "even window"),
        ("refined-swin", {"depths": []}, "depths"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENCODERS.create(name, options)
    with pytest.raises(UsageError, match="at least 1 wave"):
        UPSAMPLERS.create("thera", {"waves": 0}, in_channels=8)


@pytest.mark.slow
def test_graphs_in_onnx_and_openvino() -> None:
    forms.check_onnx(CONFIG, only=("render",))
    for encoder in (PLUS, PRO):
        cases = (((9, 13), 2.7), ((8, 16), 2))
        forms.check_onnx({**CONFIG, "encoder": encoder}, only=("encode",), cases=cases)


@pytest.mark.slow
def test_program_in_coreml(tmp_path: Path) -> None:
    forms.check_coreml(CONFIG, tmp_path, only=("render",))
    for encoder in (PLUS, PRO):
        config = {**CONFIG, "encoder": encoder}
        forms.check_coreml(config, tmp_path, only=("encode",), dtypes=(torch.float32,))
