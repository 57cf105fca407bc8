"""What is minimised: the training form of a network on groups of patches, and the loss."""

from __future__ import annotations

import difflib
import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Axis, Grid
from scaleport.models import Network, build_network
from scaleport.models.base import TrainsOnPoints
from scaleport.models.compositions import COMPOSITIONS
from scaleport.models.positions import GridTensors
from scaleport.training.data import Group, LocatedGroup, Supervision
from scaleport.training.devices import upload
from scaleport.training.recipe import Loss, Recipe


def recipe_network(recipe: Recipe) -> Network:
    """The network of a recipe, with fresh weights.

    Raises:
        UsageError: if its configuration is wrong, or there is no composition of its name.
    """
    if not isinstance(recipe.model, str):
        return build_network(recipe.model)
    if recipe.model not in COMPOSITIONS:
        near = difflib.get_close_matches(recipe.model, COMPOSITIONS, 3, 0.4)
        raise UsageError(f"no composition {recipe.model!r}; near it: {', '.join(near) or 'none'}")
    return build_network(COMPOSITIONS[recipe.model].config)


def supervision_of(network: Network, recipe: Recipe) -> tuple[Supervision, bool]:
    """What patches are trained on, and whether samples of different scales share one call.

    Raises:
        UsageError: if the scales or the loss do not fit the network.
    """
    native = network.upsampler.native_scales
    if native and recipe.scales.range is not None:
        raise UsageError(f"this network needs scales.set, out of {list(native)}")
    if native and not set(recipe.scales.set) <= set(native):
        raise UsageError(f"this network trains at scales.set out of {list(native)}")
    if network.upsampler.family == "lattice":
        return "image", False
    if isinstance(network.upsampler, TrainsOnPoints):
        if not recipe.queries and recipe.scales.per != "sample":
            return "image", False
        if recipe.loss.fft:
            raise UsageError("loss.fft needs whole patches: set queries to 0, one scale per step")
        return "points", not network.encoder.reads_scale
    return "square", False


def pixel_loss(output: Tensor, target: Tensor, options: Loss) -> Tensor:
    """Loss of float[n, 3, h, w], or float[n, Q, 3] without a spectrum, in [0, 1].

    The spectral part is the mean absolute difference of the real and imaginary parts of the
    unnormalised ``rfft2`` (arXiv 2408.09674).
    """
    measure = functional.mse_loss if options.pixels == "mse" else functional.l1_loss
    loss = measure(output, target)
    if options.fft:
        # The transform is linear: that of the difference is the difference of both.
        spectrum = torch.view_as_real(torch.fft.rfft2(output - target))
        loss = loss + options.fft * spectrum.abs().mean()
    return loss


def unit_pixels(pixels: Tensor) -> Tensor:
    """uint8[n, h, w, 3] as float32[n, 3, h, w] in [0, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float() / 255


class Objective(nn.Module):
    """The loss of a network on a batch, as a module that processes can share.

    Args:
        network: the network to train.
        options: the loss.
    """

    def __init__(self, network: Network, options: Loss) -> None:
        super().__init__()
        self.network = network
        self.options = options
        self.squared = False
        """Whether the mean squared error takes the place of the loss: see ``Loss.last_mse``."""

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        return pixel_loss(output, target, Loss("mse") if self.squared else self.options)

    def forward(self, groups: list[LocatedGroup]) -> Tensor:
        """Mean loss over the samples of all groups, a scalar.

        Reads nothing from the processor's memory once the network has rendered at these scales,
        so that a GPU can record it: see :mod:`scaleport.training.capture`.

        Args:
            groups: those with points as :func:`located` returns them.
        """
        count = sum(len(group["sides"]) for group in groups)
        total: Tensor | None = None
        for group in groups:
            part = self._points(group) if not group["window"] else self._window(group)
            part = part * (len(group["sides"]) / count)
            total = part if total is None else total + part
        if total is None:
            raise UsageError("a batch needs at least one sample")
        return total

    def _features(self, group: LocatedGroup) -> tuple[dict[str, Tensor], Grid, dict[str, Tensor]]:
        image = unit_pixels(group["lr"])
        side = image.shape[2]
        grid = Grid.from_size(side, side, group["sides"][0], group["sides"][0])
        with torch.autocast(image.device.type, enabled=False):
            constants = self.network.prepare(grid)  # hyper-networks stay float32
        return self.network.encode(image, constants), grid, constants

    def _window(self, group: LocatedGroup) -> Tensor:
        features, grid, constants = self._features(group)
        y0, x0, y1, x1 = group["window"]
        out = self.network.render(features, grid.region(y0, x0, y1, x1), constants)
        return self._loss(out.float(), unit_pixels(group["target"]))

    def _points(self, group: LocatedGroup) -> Tensor:
        features, _, _ = self._features(group)
        norm, upsampler = self.network.normalisation, self.network.upsampler
        assert isinstance(upsampler, TrainsOnPoints)  # see supervision_of
        out = upsampler.train_points(features["feature"], group["at"])
        pixels = out.float() * norm.std + self.network.mean.reshape(1, 1, 3)
        return self._loss(pixels, group["target"].float() / 255)


def located(group: Group) -> LocatedGroup:
    """A group with the grid of its points, on their device."""
    made = LocatedGroup(
        lr=group["lr"],
        target=group["target"],
        sides=group["sides"],
        window=group["window"],
        points=group["points"],
    )
    if group["window"]:
        return made
    chosen, sides = group["points"], group["sides"]
    length, device = group["lr"].shape[1], chosen.device
    width = max(sides)
    tables = [_positions(length, side, width, device) for side in sides]
    index = torch.stack([table[0] for table in tables])
    offset = torch.stack([table[1] for table in tables])
    across = upload(sides, device)[:, None]
    row, col = chosen // across, chosen % across
    scales = [[Axis.whole(length, side).scale] * 2 for side in sides]
    made["at"] = GridTensors(
        index.gather(1, row),
        offset.gather(1, row),
        index.gather(1, col),
        offset.gather(1, col),
        upload(scales, device),
    )
    return made


@functools.lru_cache(maxsize=4096)
def _positions(length: int, side: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Index and offset of every output pixel of an axis, kept on the device; zeros to ``width``."""
    axis = Axis.whole(length, side)
    beyond = (0, width - side)
    index, offset = torch.tensor(axis.index), torch.tensor(axis.offset)
    return (
        functional.pad(index, beyond).to(device),
        functional.pad(offset, beyond).to(device),
    )
