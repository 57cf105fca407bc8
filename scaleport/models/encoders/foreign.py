"""Whole networks of one fixed scale, of any kind that the package ``spandrel`` can build."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from scaleport.errors import BackendError, UsageError, first_line
from scaleport.models.base import Encoder, Tiling
from scaleport.models.layers import count_windows, crop
from scaleport.models.lengths import own_length
from scaleport.models.registry import ENCODERS

_TILING = {
    "SUPPORTED": Tiling("approximate", "the reach of this network was only measured", True),
    "DISCOURAGED": Tiling("approximate", "this network sees more than a tile"),
}
_WHOLE = Tiling("not-allowed", "this network looks at the whole image")
_JOINS = ("window_reverse", "windows2img")
"""Names of functions, in spandrel's architectures, that put windows together."""
_SPLITS = ("window_partition", "img2windows")
"""Names of functions that cut features into windows: with channels last, and first."""
_MERGES = ("update_params",)
"""Names of methods that networks merge their weights with, each time that they run."""


def load_spandrel() -> Any:
    """The package spandrel.

    Raises:
        UsageError: if it is not installed.
        BackendError: if it is, and cannot be imported: it imports torchvision, whose release must
            be the one that was made for the installed torch.
    """
    try:
        import spandrel
    except ImportError as error:
        missing = (error.name or "spandrel").split(".")[0]
        if missing == "spandrel":
            raise UsageError(
                "this network needs the package spandrel: pip install 'scaleport[spandrel]'"
            ) from error
        raise BackendError(
            f"spandrel needs the package {missing}, which is missing or damaged "
            f"({first_line(error)}); {_advice(missing)}"
        ) from error
    except Exception as error:  # torchvision registers operators, and fails with torch's errors
        raise BackendError(
            f"spandrel cannot be imported: {first_line(error)}; {_advice('torchvision')}"
        ) from error
    return spandrel


def _advice(package: str) -> str:
    if package != "torchvision":
        return f"pip install {package}"
    return (
        f"install the torchvision that was made for torch {torch.__version__}, from the same "
        "package index as torch"
    )


def describe(state: dict[str, Tensor]) -> Any:
    """What spandrel makes of weights: its descriptor of a network of three colours.

    Raises:
        UsageError: if it is not installed, does not know them, or they are of another kind.
        BackendError: if it cannot be imported.
    """
    spandrel = load_spandrel()
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise UsageError(
            f"spandrel {spandrel.__version__} knows no network with these weights (the first is "
            f"{next(iter(state), 'missing')}); it lists its networks at "
            "https://github.com/chaiNNer-org/spandrel"
        ) from error
    except Exception as error:  # whatever its detectors and foreign constructors raise
        raise UsageError(f"spandrel cannot build this network: {first_line(error)}") from error
    plain = isinstance(found, spandrel.ImageModelDescriptor)
    if not plain or (found.input_channels, found.output_channels) != (3, 3):
        raise UsageError("this network does not map RGB images to RGB images")
    if found.scale < 1 or found.size_requirements.square:
        raise UsageError("this network does not take images of every shape at a whole scale")
    return found


def rewrites_itself(model: nn.Module, side: int) -> bool:
    """Whether a run in eval mode changes weights, as some networks merge theirs each time."""

    def places() -> list[tuple[int, int]]:
        return [(value.data_ptr(), value._version) for value in model.state_dict().values()]

    with torch.no_grad():
        before = places()
        model.eval()(torch.zeros(1, 3, side, side))
        return places() != before


def settled(model: nn.Module, side: int) -> nn.Module:
    """A copy that holds its merged weights and does not merge them again.

    Args:
        model: a network that merges its weights whenever it runs, or any other one.
        side: side of a square image that it takes.
    """
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        twin(torch.zeros(1, 3, side, side))
    for module in twin.modules():
        for name in _MERGES:
            if callable(getattr(module, name, None)):
                setattr(module, name, _nothing)
    return twin


def _nothing() -> None:
    """Take the place of a method that merges weights which are merged already."""


def continued(length: int, padded: int, like: Tensor) -> Tensor:
    """Indices int32[padded] that continue ``0 .. length - 1`` as spandrel pads images.

    By reflection as far as that goes, then with the first one repeated.
    """
    place = torch.arange(padded, device=like.device, dtype=torch.int32)
    back = torch.full_like(place, length - 1) * 2 - place
    return torch.minimum(place, torch.maximum(back, torch.zeros_like(place)))


def pad_like_spandrel(x: Tensor, multiple: int, minimum: int) -> Tensor:
    """Continue float[N, C, H, W] to the sizes that a network takes.

    Args:
        x: images.
        multiple: what both sides must be a multiple of.
        minimum: smallest side, a multiple of ``multiple``.
    """
    if multiple == 1 and minimum <= 1:
        return x
    least = max(minimum // multiple, 1)
    for dim in (2, 3):
        count = count_windows(x.shape[dim], multiple)
        if least > 1:
            count = torch.sym_max(count, least)  # type: ignore[no-untyped-call]
        padded = own_length(count, least, x) * multiple
        x = x.index_select(dim, continued(x.shape[dim], padded, x))
    return x


@ENCODERS.register("spandrel")
class Foreign(Encoder):
    """A network that spandrel builds, as an encoder of 3 s^2 channels for ``shuffle``.

    Its output is taken apart into the sub-pixels of every LR pixel. Images are continued as
    spandrel does it, to the sizes that the network needs.

    Args:
        shapes: shape of every weight, by the name in its authors' file; what the architecture and
            its sizes are recognised by.
        scale: its scale.
        multiple: what images are padded to a multiple of; 0: what spandrel says.
        minimum: smallest side that images are padded to; 0: what spandrel says.
    """

    own_lengths = True

    def __init__(
        self, shapes: dict[str, list[int]], scale: int, multiple: int = 0, minimum: int = 0
    ) -> None:
        super().__init__()
        if not isinstance(shapes, dict) or not shapes:
            raise UsageError("spandrel needs the shapes of the weights by their names")
        if min(multiple, minimum) < 0 or max(multiple, minimum) > 1024:
            raise UsageError("spandrel needs a multiple and a minimum of 0 to 1024")
        found = describe({name: torch.zeros(shape) for name, shape in shapes.items()})
        if found.scale != scale:
            raise UsageError(f"these weights are of scale {found.scale}, not {scale}")
        self.model: nn.Module = found.model
        self.scale = scale
        self.out_channels = 3 * scale * scale
        needs = found.size_requirements
        self.multiple = multiple or needs.multiple_of
        least = minimum or max(needs.minimum, 1)
        self.minimum = count_windows(least, self.multiple) * self.multiple
        self.tiling = _TILING.get(found.tiling.name, _WHOLE)
        self._side = max(16, self.minimum)
        if rewrites_itself(self.model, self._side):
            if rewrites_itself(settled(self.model, self._side), self._side):
                # Tracing such a network can crash the interpreter.
                self.export_refusal = "its code changes weights while it runs, which no graph can"
            else:
                self.rewrites = ("weights merged once",)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, 3 s^2, H, W]."""
        return self.taken_apart(self.model, x)

    def taken_apart(self, model: nn.Module, x: Tensor) -> Tensor:
        """The same with a model in the place of ours."""
        height, width, s = x.shape[2], x.shape[3], self.scale
        x = pad_like_spandrel(x, self.multiple, self.minimum)
        h, w = x.shape[2], x.shape[3]
        # Rank 5 at most, for Core ML: colours join the batch.
        y = model(x).reshape(-1, h, s, w, s).permute(0, 2, 4, 1, 3)
        y = y.reshape(-1, self.out_channels, h, w)
        return crop(y, height, width) if self.minimum > 1 else y

    def deploy(self) -> nn.Module:
        """The network with its weights merged, and windows put together without divisions."""
        return ForeignDeployed(self)


class ForeignDeployed(nn.Module):
    """The deploy form of :class:`Foreign`."""

    def __init__(self, encoder: Foreign) -> None:
        super().__init__()
        model = encoder.model
        self.model = settled(model, encoder._side) if encoder.rewrites else model
        encoder.model = nn.Identity()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, 3 s^2, H, W]."""
        with windows_for_graphs(self.model):
            return self.encoder.taken_apart(self.model, x)


@contextmanager
def windows_for_graphs(model: nn.Module) -> Iterator[None]:
    """Let a network of spandrel cut and join its windows in a way that graphs can hold.

    Its modules divide sizes as floats to find the number of images, and a trace takes the quotient
    for a constant; and they use tensors of rank 6, which Core ML does not have. Results are the
    same.
    """
    modules = {sys.modules[type(part).__module__] for part in model.modules()}
    ours = dict.fromkeys(_JOINS, _join) | dict.fromkeys(_SPLITS, _split)
    found = [
        (module, name, getattr(module, name))
        for module in modules
        for name in ours
        if module.__name__.startswith("spandrel.") and name in vars(module)
    ]
    try:
        for module, name, theirs in found:
            setattr(module, name, ours[name](theirs))
        yield
    finally:
        for module, name, theirs in found:
            setattr(module, name, theirs)


def _split(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Our cut into windows, for calls that look like theirs."""
    signature = inspect.signature(theirs)
    channels_first = theirs.__name__ == "img2windows"

    def split(*args: Any, **kwargs: Any) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        x, *window = bound.args
        if bound.kwargs or x.dim() != 4 or len(window) != (2 if channels_first else 1):
            return theirs(*args, **kwargs)
        if not channels_first:
            window = list(window[0]) if isinstance(window[0], (tuple, list)) else window * 2
        rows, cols = window
        if channels_first:
            x = x.permute(0, 2, 3, 1)
        n, height, width, c = x.shape
        down, across = height // rows, width // cols
        x = x.reshape(n * down, rows, across, cols, c).permute(0, 2, 1, 3, 4)
        shape = (rows * cols,) if channels_first else (rows, cols)
        cut: Tensor = x.reshape(n * down * across, *shape, c)
        return cut

    return split


def _join(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Our join of windows, for calls that look like theirs."""
    signature = inspect.signature(theirs)

    def join(*args: Any, **kwargs: Any) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        windows, *sizes = bound.args
        if bound.kwargs or len(sizes) not in (3, 4):
            return theirs(*args, **kwargs)
        *window, height, width = sizes
        if len(window) == 1:
            window = list(window[0]) if isinstance(window[0], (tuple, list)) else window * 2
        rows, cols = window
        down, across = height // rows, width // cols
        n, c = windows.shape[0] // (down * across), windows.shape[-1]
        x = windows.reshape(n * down, across, rows, cols, c).permute(0, 2, 1, 3, 4)
        out: Tensor = x.reshape(n, height, width, c)
        return out

    return join
