"""The manifest of a bundle: its schema, and what names of graphs and dimensions say.

``manifest.json`` is UTF-8 JSON of the :class:`Manifest` below; unknown fields are refused.
Paths are relative to the bundle directory, with forward slashes. Every number, text and list is
bounded. ``manifest.schema.json`` beside this module says the same as a JSON Schema; it is generated
by ``python -m scaleport.bundle.schema``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec

from scaleport.tensor import Name, TensorSpec

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.sig"
CHECKPOINT_NAME = "model.safetensors"
_CONTINUED: Final = re.compile(r"([HW])([1-9][0-9]{0,3})")
SMALL: Final = "_small"
"""Ends the names of the stages for pictures that are smaller than the fixed shape."""
WHOLE: Final = "whole_x"
"""Begins the names of graphs from an image of the fixed shape to its pixels at one scale."""

Text = Annotated[str, msgspec.Meta(max_length=4096)]
Label = Annotated[str, msgspec.Meta(max_length=256)]
RelativePath = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
Texts = Annotated[dict[Label, Text], msgspec.Meta(max_length=256)]
Precision = Literal["fp32", "fp16", "int8"]
InferencePrecision = Literal["", "fp32", "tf32", "bf16", "fp16"]


class ScaleRange(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Which scales the model answers.

    ``native`` lists the integer scales of a lattice model; it is empty for a query model. Any
    requested scale lies in ``min`` .. ``max`` on both axes; a lattice model renders other scales
    than its native ones at the next native one and resamples down with antialiasing.
    """

    min: Annotated[float, msgspec.Meta(gt=0, le=1024)]
    max: Annotated[float, msgspec.Meta(gt=0, le=1024)]
    native: Annotated[tuple[Positive, ...], msgspec.Meta(max_length=64)] = ()


class SizeRange(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Range of one LR axis in pixels that engines are built for."""

    min: Positive
    opt: Positive
    max: Positive


class Graph(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One exported graph."""

    path: RelativePath
    stage: Name
    precision: Precision
    inputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(max_length=64)]
    outputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(max_length=64)]
    float32_nodes: Text = ""
    """Precision plan: what stays float32 in a reduced-precision graph, in words."""
    float32_operations: Annotated[tuple[Text, ...], msgspec.Meta(max_length=10_000)] = ()
    """The same operation by operation, ``module: Kind``, of a float16 graph."""
    target: Texts = {}
    """What the graph is bound to, e.g. an engine's TensorRT version and compute capability."""


class FileEntry(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Size and hash of one file of the bundle."""

    sha256: Sha256
    bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]


class ParityResult(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One case of the parity grid, measured against the PyTorch reference."""

    backend: Name
    precision: Name
    """Of the graphs."""
    inference_precision: InferencePrecision = ""
    """What was computed in instead, where that was asked for."""
    shape: tuple[Positive, Positive]
    shape_name: Name
    scale: tuple[float, float]
    mode: Literal["whole", "staged", "tiled"]
    max_abs: float | None
    psnr: float | None
    passed: bool
    note: Text = ""


class Parity(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The stored outcome of one ``scaleport validate`` run."""

    gates: Annotated[dict[Label, dict[Label, float]], msgspec.Meta(max_length=256)]
    device: Texts
    tool_versions: Texts
    results: Annotated[tuple[ParityResult, ...], msgspec.Meta(max_length=100_000)]


class LayerPrecision(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One layer of an int8 build.

    ``effect`` is what it costs in dB when this layer alone is int8, at the scale where it costs
    most; None for a layer that was no candidate. ``reason`` says why it is float.
    """

    stage: Name
    layer: Text
    precision: Literal["int8", "fp32"]
    effect: float | None
    reason: Text = ""


class QuantisationLoss(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Mean luma PSNR in dB on the held-out images, of the float32 and of the int8 graphs."""

    backend: Name
    scale: float
    fp32: float
    int8: float


class CurvePoint(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Worst loss in dB with so many layers in int8, the least harmful first."""

    int8_layers: Count
    layers: Count
    loss: float


class Quantisation(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How the int8 graphs of a bundle came about, and what they cost."""

    images_sha256: Sha256
    """Of the names and bytes of all images of the folder, held-out ones included."""
    calibration_images: Positive
    held_out_images: Positive
    patches: Positive
    patch_side: Positive
    scales: tuple[float, float]
    """Smallest and largest scale that patches were drawn for."""
    held_out_side: Positive
    seed: int
    ranges: Literal["minmax", "percentile", "entropy", "mse"]
    max_loss: float | None
    """The budget in dB; None if there was none, and nothing was measured."""
    layers: Annotated[tuple[LayerPrecision, ...], msgspec.Meta(max_length=100_000)]
    losses: Annotated[tuple[QuantisationLoss, ...], msgspec.Meta(max_length=1024)]
    curve: Annotated[tuple[CurvePoint, ...], msgspec.Meta(max_length=1024)]


class Manifest(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Everything that a runtime must know about a bundle."""

    format_version: int
    name: Name
    family: Literal["lattice", "query"]
    model: dict[str, Any]
    """The checkpoint's own configuration: encoder, upsampler, normalisation."""
    parameters: Count
    scale: ScaleRange
    size_rule: Literal["round-half-up"]
    height: SizeRange
    width: SizeRange
    receptive_field: Annotated[int, msgspec.Meta(ge=0, le=4096)]
    """Measured radius in LR pixels: how far from its own place an output pixel looks."""
    render_radius: Annotated[int, msgspec.Meta(ge=0, le=4096)] | None = None
    """The same of the stage that renders, from an output pixel to features; None if not known."""
    tile_step: Positive = 1
    """Crops of tiles begin and end at multiples of this in LR pixels, or at the image border."""
    tiling: Literal["exact", "approximate", "not-allowed"]
    graphs: Annotated[
        dict[Name, Annotated[tuple[Graph, ...], msgspec.Meta(max_length=1024)]],
        msgspec.Meta(max_length=64),
    ]
    """Graphs by format: ``onnx``, ``openvino``, ``tensorrt``, ``coreml``."""
    files: Annotated[dict[RelativePath, FileEntry], msgspec.Meta(max_length=10_000)]
    tool_versions: Texts
    license: Text = ""
    skipped: Annotated[dict[Name, Text], msgspec.Meta(max_length=64)] = {}
    """Formats that were asked for and not written, with the reason."""
    parity: Parity | None = None
    quantisation: Quantisation | None = None
    """Of the int8 graphs, if there are any."""

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of the only image that the graphs take; None if they take any size."""
        encoders = (g for graphs in self.graphs.values() for g in graphs if g.stage == "encode")
        encode = next(encoders, None)
        if encode is None:
            return None
        return fixed_sides(next(t for t in encode.inputs if t.name == "image"))


def fixed_sides(image: TensorSpec) -> tuple[int, int] | None:
    """Height and width of an image [N, C, H, W]; None if one of them is dynamic."""
    height, width = image.shape[2:]
    both = isinstance(height, int) and isinstance(width, int)
    return (int(height), int(width)) if both else None


def split_dimension(name: str) -> tuple[str, int]:
    """The axis of a dimension and the windows that it is continued to: ``H8`` is ``H`` and 8.

    Any other name is an axis of windows of 1.
    """
    match = _CONTINUED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, 1)


def continued(length: int, window: int) -> int:
    """The least length in whole windows."""
    return -(-length // window) * window


def continued_most(length: int, window: int) -> int:
    """The largest: some networks add a whole window to what needs none."""
    return length if window == 1 else (length // window + 1) * window


def fixed_output(graph: Graph) -> tuple[int, int] | None:
    """Height and width of what a graph renders; None if it is any size."""
    return fixed_sides(graph.outputs[0])


def whole_name(scale: float) -> str:
    """Name of the graph from an image to its pixels at one scale: ``whole_x2``, ``whole_x2.7``."""
    return f"{WHOLE}{scale:g}"


def scale_of(stage: str) -> float | None:
    """The scale of such a graph; None of any other stage."""
    if not stage.startswith(WHOLE):
        return None
    try:
        return float(stage.removeprefix(WHOLE))
    except ValueError:
        return None


def encode(manifest: Manifest) -> bytes:
    """Serialise as indented JSON with a final newline."""
    return (
        msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n"
    )


def decode(data: bytes) -> Manifest:
    """Parse and check a manifest.

    Raises:
        msgspec.DecodeError: if it is not JSON.
        msgspec.ValidationError: if it does not follow the schema.
    """
    return msgspec.json.decode(data, type=Manifest)
