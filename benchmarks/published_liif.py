"""LIIF evaluated by the operations of its published evaluation, for comparison of speed.

Scaleport's own training form computes the same function from integer positions and gathers; the
published evaluation samples an unfolded feature map with ``grid_sample`` at float coordinates, in
pieces of 30 000 queries. Only the operations and their order follow arXiv 2012.09161.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from scaleport.models.network import Network
from scaleport.models.upsamplers.liif import LIIF

QUERIES = 30_000


def centres(length: int) -> Tensor:
    """Pixel centres of an axis on [-1, 1]."""
    return (2 * torch.arange(length) + 1) / length - 1


def upscale(network: Network, image: Tensor, rows: int, cols: int) -> Tensor:
    """Upscale float[1, 3, H, W] in [0, 1] to float[1, 3, rows, cols]."""
    assert isinstance(network.upsampler, LIIF)
    feature = network.encode(image)["feature"]
    coordinates = torch.cartesian_prod(centres(rows), centres(cols))[None]
    cell = torch.tensor([2 / rows, 2 / cols]).expand_as(coordinates)
    pieces = [
        decode(
            network.upsampler, feature, coordinates[:, i : i + QUERIES], cell[:, i : i + QUERIES]
        )
        for i in range(0, rows * cols, QUERIES)
    ]
    out = torch.cat(pieces, dim=1).reshape(1, rows, cols, 3).permute(0, 3, 1, 2)
    return out * network.normalisation.std + network.mean


def decode(upsampler: LIIF, feature: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
    """Decode float[1, Q, 2] coordinates (y, x) on [-1, 1] to float[1, Q, 3]."""
    _, channels, height, width = feature.shape
    size = torch.tensor([height, width], dtype=feature.dtype)
    unfolded = functional.unfold(feature, 3, padding=1).reshape(1, 9 * channels, height, width)
    places = torch.stack(torch.meshgrid(centres(height), centres(width), indexing="ij"))[None]
    outputs, areas = [], []
    for step_y in (-1, 1):
        for step_x in (-1, 1):
            shift = torch.tensor([step_y, step_x]) / size + 1e-6
            near = (coordinates + shift).clamp(-1 + 1e-6, 1 - 1e-6).flip(-1)[:, None]
            found = [
                functional.grid_sample(source, near, mode="nearest", align_corners=False)
                for source in (unfolded, places)
            ]
            values, centre = (f[:, :, 0].permute(0, 2, 1) for f in found)
            offset = (coordinates - centre) * size
            inputs = torch.cat([values, offset, cell * size], dim=-1)
            outputs.append(upsampler.mlp(inputs.flatten(0, 1)).reshape(1, -1, 3))
            areas.append((offset[..., 0] * offset[..., 1]).abs() + 1e-9)
    total = sum(areas)
    # Each prediction is weighted with the area of the opposite corner.
    return sum(o * (a / total)[..., None] for o, a in zip(outputs, areas[::-1], strict=True))
