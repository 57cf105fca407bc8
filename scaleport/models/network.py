"""A whole network: normalisation, encoder and upsampler, in training form."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from scaleport.bundle.manifest import ScaleRange
from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.base import (
    Constants,
    DeployForm,
    Encoder,
    Features,
    Normalisation,
    Tiling,
    Upsampler,
    image_constant,
)
from scaleport.models.layers import crop
from scaleport.models.padded_form import padded_form
from scaleport.models.registry import ENCODERS, UPSAMPLERS
from scaleport.models.resample import resample


class Network(nn.Module):
    """Training form of a super-resolution network, the reference of every parity test.

    ``forward`` is the composition of the three verbs: ``prepare`` once per scale, ``encode`` once
    per image, ``render`` once per output.
    """

    mean: Tensor

    def __init__(
        self,
        encoder: Encoder,
        upsampler: Upsampler,
        normalisation: Normalisation,
        limits: ScaleRange,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.upsampler = upsampler
        self.normalisation = normalisation
        self.limits = limits
        self.config = config
        self.register_buffer("mean", image_constant(normalisation.mean), persistent=False)

    def native_scale(self, grid: Grid) -> int | None:
        """Integer scale that a lattice network renders at to answer ``grid``; None for a query one.

        The smallest native scale that reaches both axes of the output.

        Raises:
            UsageError: if no native scale is large enough.
        """
        if self.upsampler.family == "query":
            return None
        (height, width), (out_height, out_width) = grid.input_size, grid.output_size
        for scale in sorted(self.upsampler.native_scales):
            if height * scale >= out_height and width * scale >= out_width:
                return scale
        raise UsageError(
            f"{out_height}x{out_width} from {height}x{width} is beyond the largest scale of this "
            f"network, {max(self.upsampler.native_scales)}"
        )

    def prepare(self, grid: Grid) -> Constants:
        """Constants that depend on the scale or the output size only."""
        constants = self.encoder.prepare(grid)
        scale = self.native_scale(grid)
        return constants if scale is None else constants | self.upsampler.prepare(scale)

    def encode(self, image: Tensor, constants: Constants | None = None) -> Features:
        """Features of an image; of the continued one, where windows need it.

        Before a query upsampler they are cut to the image; a lattice upsampler makes pixels of all
        of them, which :meth:`render` cuts, as the published networks do.

        Args:
            image: float[N, 3, H, W], RGB in [0, 1].
            constants: result of :meth:`prepare`, for networks whose encoder depends on the scale.
        """
        padding, crops = self.encoder.padding, self.upsampler.family == "query"
        continued = padding.pad(image) if padding else image
        x = (continued - self.mean) / self.normalisation.std
        more = []
        if self.encoder.reads_scale:
            if constants is None:
                raise UsageError(
                    "this encoder depends on the scale: encode needs what prepare made"
                )
            more = [constants["modulation"]]
        features = {"feature": self.encoder(x, *more)}
        if padding and crops:
            features["feature"] = crop(features["feature"], image.shape[2], image.shape[3])
        if self.upsampler.reads_skip:
            seen = image if crops else continued
            features["skip"] = (seen - self.mean) / self.normalisation.std
            features["unshifted"] = seen / self.normalisation.std
        return features

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Pixels of a grid: float[N, 3, rows, columns], about [0, 1], not clamped."""
        scale = self.native_scale(grid)
        if scale is None:
            out = self.upsampler.render(features, grid, constants)
            return out * self.normalisation.std + self.mean
        height, width = grid.input_size
        down, across = (self.encoder.padding.padded(length) for length in grid.input_size)
        continued = Grid.from_size(down, across, down * scale, across * scale)
        out = self.upsampler.render(features, continued, constants)
        out = (out * self.normalisation.std + self.mean)[..., : height * scale, : width * scale]
        whole = Grid.from_size(height, width, height * scale, width * scale)
        if whole == grid:
            return out
        return resample(out, grid.rows, grid.cols)

    def forward(self, image: Tensor, grid: Grid) -> Tensor:
        """Upscale float[N, 3, H, W] in [0, 1] to the pixels of ``grid``."""
        constants = self.prepare(grid)
        return self.render(self.encode(image, constants), grid, constants)

    def deploy(self, dtype: torch.dtype = torch.float32) -> DeployForm:
        """The deploy form, in eval mode, sharing no state with this network."""
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        with torch.no_grad():
            prepare = twin.encoder.deploy_prepare()
            form = twin.upsampler.deploy(twin.encoder.deploy(), self.normalisation, dtype)
            if twin.encoder.padding:
                lattice = twin.upsampler.family == "lattice"
                form = padded_form(form, twin.encoder.padding, lattice)
        words = (twin.encoder.float32_parts, form.encode.float32_parts)
        encode = replace(form.encode, float32_parts="; ".join(filter(None, words)))
        if prepare is None:
            return replace(form, encode=encode)
        encode = replace(encode, inputs=(*encode.inputs, *prepare.outputs))
        return replace(form, prepare=prepare, encode=encode)

    @property
    def export_refusal(self) -> str:
        """Why this network cannot be exported; empty if it can."""
        return str(self.encoder.export_refusal)

    @property
    def tiling(self) -> Tiling:
        """The stricter of what encoder and upsampler allow."""
        order = ("exact", "approximate", "not-allowed")
        parts = (self.encoder.tiling, self.upsampler.tiling)
        return max(parts, key=lambda part: order.index(part.kind))

    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters())


def build_network(config: dict[str, Any]) -> Network:
    """Build a network, with fresh weights, from its configuration.

    Args:
        config: ``{"encoder": {"name": ..., options}, "upsampler": {"name": ..., options},
            "normalisation": {"mean": [r, g, b], "std": x}, "scale": {"min": a, "max": b}}``; the
            last two may be left out.

    Raises:
        UsageError: if a part is missing or unknown, or an option is not accepted.
    """
    if not isinstance(config, dict):
        raise UsageError(f"a model configuration is a mapping, got {config!r}")
    unknown = set(config) - {"encoder", "upsampler", "normalisation", "scale"}
    if unknown:
        raise UsageError(f"unknown model settings: {', '.join(sorted(unknown))}")
    parts = {}
    for part in ("encoder", "upsampler"):
        options = config.get(part)
        if not isinstance(options, dict) or not isinstance(options.get("name"), str):
            raise UsageError(f"a model configuration needs {part}.name")
        parts[part] = (options["name"], {k: v for k, v in options.items() if k != "name"})
    encoder = ENCODERS.create(*parts["encoder"])
    upsampler = UPSAMPLERS.create(*parts["upsampler"], in_channels=encoder.out_channels)
    if encoder.reads_scale and upsampler.family != "query":
        raise UsageError(
            f"encoder {parts['encoder'][0]!r} depends on the output size and needs a query "
            f"upsampler, not {parts['upsampler'][0]!r}"
        )
    normalisation, limits = _numbers(config)
    natives = upsampler.native_scales
    if natives:
        most = min(limits.max, float(max(natives)))
        limits = ScaleRange(min=limits.min, max=most, native=natives)
    resolved = {
        "encoder": dict(config["encoder"]),
        "upsampler": dict(config["upsampler"]),
        "normalisation": asdict(normalisation),
        "scale": {"min": limits.min, "max": limits.max},
    }
    resolved["normalisation"]["mean"] = list(normalisation.mean)
    return Network(encoder, upsampler, normalisation, limits, resolved)


def _numbers(config: dict[str, Any]) -> tuple[Normalisation, ScaleRange]:
    """The settings of a configuration that are numbers.

    Raises:
        UsageError: if they are not what they must be.
    """
    try:
        norm = dict(config.get("normalisation", {}))
        if "mean" in norm:
            norm["mean"] = tuple(float(value) for value in norm["mean"])
        normalisation = Normalisation(**norm)
        scale = {"min": 1.0, "max": 8.0, **config.get("scale", {})}
        limits = ScaleRange(min=scale.pop("min"), max=scale.pop("max"))
        if scale:
            raise TypeError(f"unknown settings of scale: {', '.join(scale)}")
        numbers = (*normalisation.mean, normalisation.std, limits.min, limits.max)
        valid = len(normalisation.mean) == 3 and all(math.isfinite(value) for value in numbers)
        valid = valid and normalisation.std > 0 and 0 < limits.min <= limits.max
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"wrong normalisation or scale settings: {error}") from error
    if not valid:
        raise UsageError("normalisation needs 3 means and a positive std, scale 0 < min <= max")
    return normalisation, limits
