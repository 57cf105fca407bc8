"""What a calibration came to, for people, for programs and as a plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from scaleport.bundle.manifest import (
    CurvePoint,
    LayerPrecision,
    Quantisation,
    QuantisationLoss,
)
from scaleport.calibration.images import ImageSet, Sampling
from scaleport.calibration.layers import Layer
from scaleport.calibration.ranges import Method
from scaleport.calibration.search import Outcome
from scaleport.errors import BackendError
from scaleport.figures import save_figure


def describe(
    images: ImageSet,
    sampling: Sampling,
    scales: tuple[float, float],
    method: Method,
    budget: float | None,
    fixed: tuple[Layer, ...],
    outcome: Outcome,
) -> Quantisation:
    """The record that the manifest keeps."""
    layers = [
        LayerPrecision(
            stage=layer.stage, layer=layer.name, precision="fp32", effect=None, reason=layer.fixed
        )
        for layer in fixed
    ]
    for number, effect in enumerate(outcome.effects):
        kept = number < outcome.kept
        rank = f"number {number + 1} of {len(outcome.effects)} by its effect"
        layers.append(
            LayerPrecision(
                stage=effect.layer.stage,
                layer=effect.layer.name,
                precision="fp32" if kept else "int8",
                effect=None if math.isnan(effect.loss) else effect.loss,
                reason=f"kept for the budget: {rank}" if kept else "",
            )
        )
    return Quantisation(
        images_sha256=images.sha256,
        calibration_images=len(images.calibration),
        held_out_images=len(images.held_out),
        patches=sampling.patches,
        patch_side=sampling.side,
        scales=scales,
        held_out_side=sampling.held_side,
        seed=sampling.seed,
        ranges=method,
        max_loss=budget,
        layers=tuple(layers),
        losses=tuple(
            QuantisationLoss(backend=loss.backend, scale=loss.scale, fp32=loss.fp32, int8=loss.int8)
            for loss in outcome.losses
        ),
        curve=tuple(
            CurvePoint(int8_layers=point.quantised, layers=point.layers, loss=point.loss)
            for point in outcome.curve
        ),
    )


def worst_loss(record: Quantisation) -> float:
    """The largest loss in dB over backends and scales."""
    return max((loss.fp32 - loss.int8 for loss in record.losses), default=float("inf"))


def as_dict(record: Quantisation) -> dict[str, Any]:
    """Everything as plain values that JSON can hold, with the worst loss and counts."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    int8 = sum(layer.precision == "int8" for layer in record.layers)
    return {
        **plain,
        "worst_loss": worst_loss(record) if record.losses else None,
        "int8_layers": int8,
        "fp32_layers": len(record.layers) - int8,
    }


def plot(record: Quantisation, target: Path, title: str = "") -> None:
    """Draw loss against the fraction of layers in int8.

    Args:
        record: what to draw.
        target: image file; its suffix chooses the format (.png, .svg, .pdf).
        title: heading.

    Raises:
        BackendError: if matplotlib is not installed.
        OutputError: if the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError("a plot needs matplotlib: pip install 'scaleport[train]'") from error
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = sorted((p.int8_layers / max(1, p.layers), p.loss) for p in record.curve)
    axes.plot([100 * x for x, _ in points], [y for _, y in points], marker="o")
    if record.max_loss is not None:
        axes.axhline(record.max_loss, linestyle="--", color="gray")
        axes.annotate("budget", (0, record.max_loss), textcoords="offset points", xytext=(0, 4))
    axes.set(xlabel="layers in int8, %", ylabel="worst loss, dB", title=title)
    save_figure(figure, target)
