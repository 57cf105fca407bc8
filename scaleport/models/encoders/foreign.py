"""Whole networks of one fixed scale, of any kind that the package ``spandrel`` can build."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scaleport.errors import UsageError, first_line
from scaleport.models.base import Encoder, Tiling
from scaleport.models.layers import count_windows, crop, pad_to_windows
from scaleport.models.registry import ENCODERS

_TILING = {
    "SUPPORTED": Tiling("approximate", "the reach of this network was only measured", True),
    "DISCOURAGED": Tiling("approximate", "this network sees more than a tile"),
}
_WHOLE = Tiling("not-allowed", "this network looks at the whole image")


def describe(state: dict[str, Tensor]) -> Any:
    """What spandrel makes of weights: its descriptor of a network of three colours.

    Raises:
        UsageError: if it is not installed, does not know them, or they are of another kind.
    """
    try:
        import spandrel
    except ImportError as error:
        raise UsageError(
            "this network needs the package spandrel: pip install 'scaleport[spandrel]'"
        ) from error
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except Exception as error:  # whatever its detectors and foreign constructors raise
        raise UsageError(f"spandrel cannot build this network: {first_line(error)}") from error
    plain = isinstance(found, spandrel.ImageModelDescriptor)
    if not plain or (found.input_channels, found.output_channels) != (3, 3):
        raise UsageError("this network does not map images of three colours to such images")
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


@ENCODERS.register("spandrel")
class Foreign(Encoder):
    """A network that spandrel builds, as an encoder of 3 s^2 channels for ``shuffle``.

    Its output is taken apart into the sub-pixels of every LR pixel. Images are continued by
    reflection to the multiples that the network needs.

    Args:
        shapes: shape of every weight, by the name in its authors' file; what the architecture and
            its sizes are recognised by.
        scale: its scale.
    """

    def __init__(self, shapes: dict[str, list[int]], scale: int) -> None:
        super().__init__()
        if not isinstance(shapes, dict) or not shapes:
            raise UsageError("spandrel needs the shapes of the weights by their names")
        found = describe({name: torch.zeros(shape) for name, shape in shapes.items()})
        if found.scale != scale:
            raise UsageError(f"these weights are of scale {found.scale}, not {scale}")
        self.model: nn.Module = found.model
        self.scale = scale
        self.out_channels = 3 * scale * scale
        needs = found.size_requirements
        self.multiple = max(1, needs.multiple_of, needs.minimum)
        self.tiling = _TILING.get(found.tiling.name, _WHOLE)
        if rewrites_itself(self.model, max(16, self.multiple)):
            # Tracing such a network can crash the interpreter.
            self.export_refusal = "its code changes weights while it runs, which no graph can"

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, 3 s^2, H, W]."""
        height, width, s = x.shape[2], x.shape[3], self.scale
        if self.multiple > 1:
            x = pad_to_windows(x, self.multiple)
        h = count_windows(height, self.multiple) * self.multiple
        w = count_windows(width, self.multiple) * self.multiple
        # Rank 5 at most, for Core ML: colours join the batch.
        y = self.model(x).reshape(-1, h, s, w, s).permute(0, 2, 4, 1, 3)
        y = y.reshape(-1, self.out_channels, h, w)
        return crop(y, height, width) if self.multiple > 1 else y
