"""What encoders and upsamplers have in common, and the stages that exporters work on.

A network exists in two forms that compute the same function:

* the *training form*, as published: the reference of every parity test;
* the *deploy form*, cheaper: a set of :class:`Stage` modules with named tensors, which the
  exporters lower to graphs.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from scaleport.bundle.manifest import SMALL
from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.positions import GridTensors
from scaleport.tensor import TensorSpec

Constants = dict[str, Tensor]
Features = dict[str, Tensor]
PaddingKind = Literal["reflect", "mirror", "test-script"]
PADDINGS: tuple[str, ...] = get_args(PaddingKind)


@dataclass(frozen=True)
class Stage:
    """One graph to be: a module whose ``forward`` takes and returns these tensors in order.

    The borders of a stage are float32 or int32 whatever the module computes in.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    float32_parts: str = ""
    """What stays float32 in a reduced-precision build, for the manifest."""


def listed(returned: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """What the module of a stage returned, one tensor for each of the stage's outputs."""
    return [returned] if isinstance(returned, Tensor) else list(returned)


IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"))
UPSCALED = TensorSpec("upscaled", "float32", ("N", 3, "Ho", "Wo"))
SKIP = TensorSpec("skip", "float32", ("N", 3, "H", "W"))
"""The normalised image, from encode to render, for upsamplers that add to it."""
CELL = TensorSpec("cell", "float32", (2,))
"""Size of an output pixel, (2 / Ho, 2 / Wo) of the whole output; an input of ``prepare``."""
GRID_PORTS = (
    TensorSpec("row_index", "int32", ("Ho",)),
    TensorSpec("row_offset", "float32", ("Ho",)),
    TensorSpec("col_index", "int32", ("Wo",)),
    TensorSpec("col_offset", "float32", ("Wo",)),
    TensorSpec("scale", "float32", (2,)),
)
"""A :class:`scaleport.models.positions.GridTensors` at the border of a graph. A render stage takes
them last, as ``*grid``; one that reads no scale goes without the last of them."""


@dataclass(frozen=True)
class DeployForm:
    """The deploy form of one network: the stages that make up its graphs.

    ``prepare`` is None when nothing depends on the scale alone. In a lattice model it makes what
    ``render`` reads of an integer scale; in a query model what ``encode`` reads of the output size
    (:attr:`Encoder.reads_scale`), from inputs named ``cell`` or ``scale``.

    ``bound`` holds, per native scale of a lattice model, the render stage with that scale's
    constants written in; ``render`` is the general one and may be None where only the bound ones
    exist.
    """

    encode: Stage
    render: Stage | None
    prepare: Stage | None = None
    bound: dict[int, Stage] = field(default_factory=dict)
    bind: Callable[[int], Stage] | None = None

    def stages(self) -> list[Stage]:
        """All stages there are."""
        some = [self.prepare, self.encode, self.render, *self.bound.values()]
        return [stage for stage in some if stage is not None]

    def stage(self, name: str) -> Stage | None:
        """The stage of a name, made if need be; None if this network has none."""
        from scaleport.models.small_form import small_form

        for stage in self.stages():
            if stage.name == name:
                return stage
        if name.endswith(SMALL):
            large = self.stage(name.removesuffix(SMALL))
            return None if large is None else small_form(large)
        scale = name.removeprefix("render_x")
        if self.bind is None or scale == name or not scale.isdecimal():
            return None
        return self.bind(int(scale))


@dataclass(frozen=True)
class Normalisation:
    """Affine map between pixels in [0, 1] and what the network sees: ``(x - mean) / std``."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: float = 1.0


@dataclass(frozen=True)
class Tiling:
    """Whether an image may be worked on tile by tile, and why not or not exactly."""

    kind: Literal["exact", "approximate", "not-allowed"]
    reason: str = ""
    measurable: bool = False
    """Of ``approximate``: that there is a receptive field all the same, but for rare values. Tiles
    then overlap at least that far."""


EXACT = Tiling("exact")


# Indices that continue an image: made of integers, with no branch on a length, so that lengths stay
# dynamic in a graph.
def reflected(length: int, padded: int, like: Tensor) -> Tensor:
    """Indices int32[padded] that continue ``0 .. length - 1`` by reflection, however far."""
    place = torch.arange(padded, device=like.device, dtype=torch.int32)
    return _reflect(place, torch.full_like(place, length - 1))


def mirrored(length: int, padded: int, like: Tensor) -> Tensor:
    """Indices int32[padded] that continue ``0 .. length - 1`` backwards, the last one repeated."""
    place = torch.arange(padded, device=like.device, dtype=torch.int32)
    last = _last_of_both(place, length)
    place = torch.remainder(place, last + torch.full_like(place, 1))
    return torch.minimum(place, last - place)


def mirrored_once(length: int, padded: int, like: Tensor) -> Tensor:
    """The same for one mirrored copy, and from there on by reflection of both."""
    place = torch.arange(padded, device=like.device, dtype=torch.int32)
    last = _last_of_both(place, length)
    place = _reflect(place, last)
    return torch.minimum(place, last - place)


def _last_of_both(place: Tensor, length: int) -> Tensor:
    # Between tensors: a converter makes floats of integers that meet Python's numbers.
    last = torch.full_like(place, length - 1)
    return last + last + torch.full_like(place, 1)


def _reflect(place: Tensor, last: Tensor) -> Tensor:
    period = torch.maximum(last + last, torch.full_like(place, 1))
    place = torch.remainder(place, period)
    return torch.minimum(place, period - place)


@dataclass(frozen=True)
class Padding:
    """The windows that an encoder needs, and what continues an image to whole ones.

    Attributes:
        multiple: side of a window in pixels; 1 needs no continuation.
        kind: ``reflect``: the pixels before the last one, backwards, up to the next multiple;
            ``mirror``: all pixels backwards, the last one repeated, up to the next multiple;
            ``test-script``: like ``mirror``, but always beyond the last pixel, by a whole window
            where the size is a multiple already (SwinIR's ``main_test_swinir.py``).
    """

    multiple: int = 1
    kind: PaddingKind = "reflect"

    def __post_init__(self) -> None:
        """Check the name, which comes from a configuration."""
        if self.kind not in PADDINGS:
            raise UsageError(f"padding must be one of {', '.join(PADDINGS)}, got {self.kind!r}")

    def __bool__(self) -> bool:
        """Whether any image is continued."""
        return self.multiple > 1

    def padded(self, length: int) -> int:
        """Length in pixels that an axis is continued to."""
        if self.kind == "test-script":
            return (length // self.multiple + 1) * self.multiple
        return (length + self.multiple - 1) // self.multiple * self.multiple

    def pad(self, x: Tensor) -> Tensor:
        """Continue float[N, C, H, W] to whole windows."""
        rows, cols = (self._index(length, x) for length in (x.shape[2], x.shape[3]))
        return x.index_select(2, rows).index_select(3, cols)

    def _index(self, length: int, like: Tensor) -> Tensor:
        make = {"reflect": reflected, "mirror": mirrored, "test-script": mirrored_once}[self.kind]
        return make(length, self.padded(length), like)


class Encoder(nn.Module, abc.ABC):
    """Network from a normalised image to features at LR size.

    Any H and W of at least 1 must work; what needs whole windows says so in ``padding`` and is
    only ever given those. Published networks cut what was continued from the pixels of their
    upsampler, so an encoder does not do it.
    """

    out_channels: int
    padding: Padding = Padding()
    """The windows that :meth:`forward` needs images to be continued to."""
    tile_step: int = 1
    """Tiles begin and end at multiples of this, where the image does not: windows of a tile then
    lie where those of the image do."""
    tiling: Tiling = EXACT
    reads_scale: ClassVar[bool] = False
    """Whether the features depend on the requested scale or size. ``forward`` then takes what
    :meth:`prepare` made as a second argument, and only query upsamplers fit."""
    float32_parts: str = ""
    """What of its graph stays float32 in an fp16 export, in words."""
    export_refusal: str = ""
    """Why no graph can hold this encoder, one sentence without a full stop; empty if one can."""
    refused_formats: Mapping[str, str] = MappingProxyType({})
    """Formats that cannot hold this encoder, with the reason, one sentence without a full stop."""
    rewrites: tuple[str, ...] = ()
    """What :meth:`deploy` does differently from :meth:`forward`, a few words each."""

    def prepare(self, grid: Grid) -> Constants:
        """Training form: ``modulation`` if ``reads_scale`` is set, else nothing."""
        del grid
        return {}

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W], of whole windows, to float[N, out_channels, H, W]."""

    def deploy_prepare(self) -> Stage | None:
        """Deploy form of :meth:`prepare`, with ``cell`` or ``scale`` as input.

        Its one output, of rank 2 and float32, is the second argument of the module that
        :meth:`deploy` returns.
        """
        return None

    def deploy(self) -> nn.Module:
        """The deploy form: a module with the same function, cheaper or friendlier to backends.

        It may share parameters with this encoder, which is not used any more afterwards. The result
        is cast to the precision of the build; normalisations and softmax widen half precision
        themselves (:func:`scaleport.models.layers.widened`).
        """
        return self


class Upsampler(nn.Module, abc.ABC):
    """Network from features at LR size to pixels at a requested scale.

    Subclasses are built with ``in_channels`` and their own options.
    """

    family: ClassVar[Literal["lattice", "query"]]
    native_scales: tuple[int, ...] = ()
    """Integer scales of a lattice upsampler; empty for a query upsampler."""
    reads_skip: ClassVar[bool] = False
    """Whether ``render`` also needs ``skip``, the normalised image."""
    binds_scales: ClassVar[bool] = False
    """Whether the deploy form of a query upsampler has :attr:`DeployForm.bind`."""
    exact_offsets: bool = False
    """Whether the last bit of a grid offset can decide a pixel. Graphs that make the grid
    themselves are then only written for runtimes whose division rounds correctly."""
    tiling: Tiling = EXACT
    """``not-allowed`` also means that one call must render all pixels of the output."""
    rewrites: tuple[str, ...] = ()
    """What :meth:`deploy` does differently from :meth:`render`, a few words each."""

    def prepare(self, scale: int) -> Constants:
        """Training form: constants of an integer scale; none unless a subclass says so."""
        del scale
        return {}

    @abc.abstractmethod
    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: normalised pixels float[N, 3, rows, columns] of ``grid``.

        ``features`` holds ``feature`` float[N, in_channels, H, W] and, where ``reads_skip`` is set,
        ``skip`` float[N, 3, H, W], and ``unshifted``, the image with the network's std but without
        its mean taken off. A lattice upsampler is only asked for whole grids at one of its native
        scales.
        """

    @abc.abstractmethod
    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Build the deploy form.

        Args:
            encoder: the network's encoder, to be joined into the encode stage; not modified.
            norm: the network's normalisation; ``render`` returns de-normalised pixels.
            dtype: ``torch.float32`` or ``torch.float16``: what the heavy part computes in.
        """


@runtime_checkable
class TrainsOnPoints(Protocol):
    """What training asks of an upsampler, to train it on chosen pixels instead of whole patches.

    Patches of one batch may then differ in scale. An upsampler without it is trained on patches of
    one scale per call.
    """

    def train_points(self, feature: Tensor, at: GridTensors) -> Tensor:
        """Normalised pixels float[N, Q, 3] of queries ``[N, Q]``, as :meth:`Upsampler.render` has.

        Args:
            feature: float[N, in_channels, H, W], the encoder's.
            at: the queries; scales are ``[N, 2]`` and may differ.
        """


def border_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the float tensors between stages: float32, or float64 in a double-precision build."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def image_constant(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """Per-channel constant that broadcasts over an NCHW image, rounded to float32 in any type."""
    return torch.tensor(list(values), dtype=torch.float32).to(dtype).reshape(1, -1, 1, 1)
