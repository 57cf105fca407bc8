"""Networks of one fixed scale: SwinIR, SRFormer and HiT-SR, and EDSR of EDSR-PyTorch."""

from __future__ import annotations

import torch

from scaleport.models.importers.convolutional import EDSR
from scaleport.models.importers.layouts import (
    EDSR_MEAN,
    MEAN,
    Config,
    Constant,
    Layout,
    Part,
    Plan,
    find_encoder,
    join,
)
from scaleport.models.importers.liif import shuffle_tail
from scaleport.models.importers.reading import Description, Refused, State, count, fit, root, size
from scaleport.models.importers.rules import Rules
from scaleport.models.importers.windowed import WINDOWED


def _windowed(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del description, scales
    encoder = find_encoder(state, "", WINDOWED)
    upsampler = _tail(state)
    return join(encoder, upsampler, MEAN, ("", ""), (1.0, float(upsampler.config["scale"])))


def _tail(state: State) -> Part:
    """One convolution and a shuffle, or the tail of the larger networks."""
    if "conv_before_upsample.0.weight" in state:
        steps = [f"upsample.{2 * i}" for i in range(count(state, "upsample.#.weight"))]
        part = shuffle_tail(state, "", steps, "conv_last")
        width = size(state, "conv_before_upsample.0.weight", 0, 4)
        rules: Rules = {"conv_before_upsample.0.*": "entry.conv.*", **part.rules}
        return Part(part.title, {**part.config, "width": width}, rules)
    key = "upsample.0.weight"
    out = size(state, key, 0, 4)
    if out % 3:
        raise Refused(f"{key} makes {out} channels, which are no three colours")
    scale = root(out // 3, key)
    return Part(f"x{scale}", {"name": "spconv", "scale": scale}, {"upsample.0.*": "conv.*"})


def _edsr(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del description, scales
    encoder = find_encoder(state, "", (EDSR,))
    steps = [f"tail.0.{2 * i}" for i in range(count(state, "tail.0.#.weight"))]
    upsampler = shuffle_tail(state, "", steps, "tail.1")
    why = "mean shifts, which are the normalisation here"
    encoder = Part(
        encoder.title,
        encoder.config,
        encoder.rules,
        (Constant("sub_mean.*", why), Constant("add_mean.*", why)),
        encoder.assumed,
        _mean_shifts(state),
    )
    return join(encoder, upsampler, MEAN, ("", ""), (1.0, float(upsampler.config["scale"])))


def _mean_shifts(state: State) -> Config:
    """The normalisation that the two mean shifts are: ``range * (x - mean)``, and back."""
    found = {}
    for name in ("sub_mean", "add_mean"):
        for part, like in (("weight", torch.empty(3, 3, 1, 1)), ("bias", torch.empty(3))):
            key = f"{name}.{part}"
            if key not in state:
                raise Refused(f"it is not a whole EDSR: missing are {key}")
            found[key] = fit(key, state[key], like).double()
    unit = torch.eye(3, dtype=torch.float64)
    plain = all(
        torch.allclose(found[f"{name}.weight"].flatten(1), unit, rtol=0, atol=1e-6)
        for name in ("sub_mean", "add_mean")
    )
    bias = found["add_mean.bias"]
    mean = torch.tensor(EDSR_MEAN, dtype=torch.float64)
    span = float((bias * mean).sum() / (mean * mean).sum())
    known = torch.allclose(bias, span * mean, rtol=1e-5) and span > 0
    if not plain or not known or not torch.allclose(found["sub_mean.bias"], -bias, rtol=1e-5):
        raise Refused("its mean shifts are not among the published ones")
    # Of rounding to float32, and nothing else.
    span = round(span, 2)
    return {"mean": list(EDSR_MEAN), "std": 1 / span}


WINDOWED_FIXED = Layout(
    "SwinIR, SRFormer and HiT-SR of one scale",
    "BasicSR (JingyunLiang/SwinIR, HVision-NKU/SRFormer, XiangZ-0/HiT-SR)",
    ("conv_first.weight", "upsample.0.weight", "patch_embed.norm.weight"),
    _windowed,
)
EDSR_PYTORCH = Layout(
    "EDSR of one scale",
    "EDSR-PyTorch (thstkdgus35/EDSR-PyTorch)",
    ("head.0.weight", "sub_mean.weight", "tail.0.0.weight"),
    _edsr,
)
