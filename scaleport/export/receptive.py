"""Measuring how far from its own place an output pixel looks."""

from __future__ import annotations

import copy

import torch
from torch import nn

from scaleport.grid import Grid
from scaleport.models.network import Network

_LARGEST = 512
_FELT = 1e-6
"""Share of the strongest influence below which one counts as fading out."""


def receptive_field(network: Network) -> int | None:
    """Radius in LR pixels that a tile's halo must have, measured on the training form.

    All weights are made positive, so that contributions cannot cancel and no ReLU closes; what
    the gradient of one output pixel does not reach then cannot influence it. The picture grows
    until the reach ends inside it.

    Where tiles are approximate anyway, there is no search if pixels 96 away are clearly felt: the
    influence of convolutions fades out much earlier, and what averages over the whole image has no
    end that a larger picture would show.

    Returns:
        The largest distance between an LR pixel that matters to an output pixel and the LR pixel
        that covers that output pixel's centre. None if the network looks at the whole image.
    """
    if network.tiling.kind != "exact" and not _fades(network):
        return None
    return _radius(network, of_features=False)


def render_radius(network: Network) -> int:
    """Radius in LR pixels around an output pixel beyond which the upsampler reads no features.

    What the deploy form has already computed at LR size is counted again, so that it is never too
    small. See :func:`receptive_field`.
    """
    return _radius(network, of_features=True)


def _radius(network: Network, of_features: bool) -> int:
    twin = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.numel():
                # Averages keep the signal near 1 over any depth.
                module.weight.fill_(1 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.zero_()
    twin.mean.zero_()
    scales = _scales(twin)
    radius, length = -1, 96
    while length <= 2 * _LARGEST:
        # Along one axis at a time a thin picture is enough, and cheap.
        radius = max(
            reach
            for scale in scales
            for reach in (
                _reach(twin, length, 1, scale, 0, of_features),
                _reach(twin, 1, length, scale, 1, of_features),
            )
        )
        if radius < length // 2 - 1:
            return radius
        length *= 2
    return radius


def _scales(network: Network) -> list[float]:
    # A query upsampler may look elsewhere from an output pixel that straddles two LR pixels, as
    # every other one does at x1.5.
    natives = network.upsampler.native_scales
    scales = [float(natives[0])] if natives else [2.0, 1.5]
    if network.limits.min < 1 and not natives:
        scales.append(network.limits.min)
    return scales


def _fades(network: Network, length: int = 192) -> bool:
    """Whether the ends of a column of noise hardly matter to its middle, with the real weights.

    What normalises or attends has no gradient where everything is equal.
    """
    twin = copy.deepcopy(network).double().eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, length, 1, dtype=torch.float64, generator=generator)
    grid = Grid.from_scale(length, 1, _scales(twin)[0])
    out = twin(image.requires_grad_(), grid)
    line = out[:, :, grid.rows.owned(length // 2, length // 2 + 1)[0]]
    (gradient,) = torch.autograd.grad(line.sum(), image)
    felt = gradient.abs().sum(dim=(0, 1, 3))
    return bool(max(felt[0], felt[-1]) <= _FELT * felt.max())


def _reach(
    network: Network, height: int, width: int, scale: float, axis: int, of_features: bool
) -> int:
    image = torch.full((1, 3, height, width), 0.5, dtype=torch.float64, requires_grad=True)
    length = (height, width)[axis]
    grid = Grid.from_scale(height, width, scale)
    reach = 0
    with torch.no_grad():
        constants = network.prepare(grid)
        constants = {k: torch.full_like(v, 1 / v[0].numel()) for k, v in constants.items()}
    features = network.encode(image, constants)
    sources = [image]
    if of_features:
        # Leaves of their own: how the encoder made them does not matter.
        features = {k: v.detach().abs().add(1).requires_grad_() for k, v in features.items()}
        sources = list(features.values())
    out = network.render(features, grid, constants)
    for middle in (length // 2, length // 2 + 1):
        side = grid.rows if axis == 0 else grid.cols
        for place in range(*side.owned(middle, middle + 1)):
            line = out[:, :, place] if axis == 0 else out[:, :, :, place]
            gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
                line.sum(), sources, retain_graph=True, allow_unused=True
            )
            for gradient in gradients:
                if gradient is None:
                    continue
                touched = gradient.abs().sum(dim=(0, 1, 3 - axis)).nonzero().flatten()
                if len(touched):
                    reach = max(reach, middle - int(touched[0]), int(touched[-1]) - middle)
    return reach
