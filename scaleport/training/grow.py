"""Begin a larger network at exactly the function of a smaller one.

After Net2Net (Chen et al. 2016, arXiv 1511.05641), but without copies of units: the small
network is kept in the first channels of the large one, and nothing that is new reaches them at
first. What a small network learnt in many cheap steps is then not learnt again in expensive ones.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from scaleport.bundle.integrity import sha256_file
from scaleport.errors import UsageError
from scaleport.models import Network, load_checkpoint
from scaleport.models.encoders.edsr import EDSR
from scaleport.models.upsamplers.igconv import IGConv
from scaleport.models.upsamplers.liif import LIIF
from scaleport.training.state import Start

PER_CHANNEL = ("freq", "amplitude")
"""Tables of IGConv with 9 rows per channel; the rows of the first channels come first."""

UNFOLDED = "upsampler.mlp.0.weight"
"""First layer of LIIF: 9 columns per channel, those of the first channels first, then position."""


def grow_from(network: Network, path: Path) -> Start:
    """Put a smaller network into a larger one; the larger then computes the smaller's function.

    Both have an EDSR encoder and the same upsampler, IGConv, IGConv+ or LIIF, and differ in width
    and number of residual blocks alone. Weights that lead from new channels to old ones are zero,
    and so are the last convolution of each new block and what the encoder hands on in new
    channels. All of these have gradients from the first step on, since what they multiply is not
    zero.

    Raises:
        ArtifactError: if the checkpoint is damaged.
        UsageError: if the networks differ in anything else, or the new one is smaller.
    """
    small = load_checkpoint(path)
    check_growth(small, network, path)
    old, new = small.state_dict(), network.state_dict()
    width = small.encoder.out_channels
    with torch.no_grad():
        for name, value in new.items():
            grown = value.clone()
            if name == UNFOLDED and isinstance(small.upsampler, LIIF):
                columns = 9 * width
                grown[:, :columns] = old[name][:, :columns]
                grown[:, -4:] = old[name][:, columns:]
            elif name in old:
                embed(grown, old[name])
            if name.startswith(("encoder.head.", "encoder.tail.")):
                # Their sum is what the encoder hands on; blocks fill new channels in between.
                grown[width:] = 0
            elif name.startswith("encoder.body.") and name not in old and ".conv2." in name:
                grown[:] = 0
            value.copy_(grown)
    fresh = tuple(sorted(name for name in new if name not in old))
    return Start(sha256_file(path).sha256, fresh, ())


def embed(large: Tensor, small: Tensor) -> None:
    """Write ``small`` into the first entries of ``large``, in place.

    Where inputs (dimension 1) are added too, the old outputs do not read them.
    """
    if small.ndim > 1 and small.shape[1] < large.shape[1]:
        large[: small.shape[0]] = 0
    large[tuple(slice(0, n) for n in small.shape)] = small


def check_growth(small: Network, large: Network, path: Path) -> None:
    """Raise UsageError unless ``small`` fits into ``large`` as :func:`grow_from` needs it."""
    for network, where in ((small, f"the model in {path}"), (large, "the recipe's model")):
        kinds = (IGConv, LIIF)
        if not isinstance(network.encoder, EDSR) or not isinstance(network.upsampler, kinds):
            raise UsageError(
                f"only an EDSR encoder with igconv, igconv-plus or liif can grow, and {where} has "
                "not got these; --init takes over what fits by name"
            )
    if type(small.upsampler) is not type(large.upsampler):
        raise UsageError(f"{path} has another upsampler than the recipe's model")
    liif = isinstance(small.upsampler, LIIF)
    new = large.state_dict()
    for name, value in small.state_dict().items():
        if name not in new:
            raise UsageError(f"{path} has more than the recipe's model: {name}")
        _check_tensor(name, value, new[name], liif, path)
    encoders = [network.config["encoder"] for network in (small, large)]
    factors = {encoder.get("residual_scale", 1.0) for encoder in encoders}
    means = [n.config.get("normalisation") for n in (small, large)]
    if len(factors) != 1 or means[0] != means[1]:
        raise UsageError(f"{path} has another residual scale or normalisation than the recipe")


def _check_tensor(name: str, value: Tensor, grown: Tensor, liif: bool, path: Path) -> None:
    """Raise UsageError unless a tensor fits into its grown form."""
    if value.ndim != grown.ndim or any(
        a > b for a, b in zip(value.shape, grown.shape, strict=True)
    ):
        raise UsageError(f"{path} is larger than the recipe's model at {name}")
    if name == UNFOLDED and liif and value.shape[0] == grown.shape[0]:
        return  # its columns follow from the width
    kernel = name.rpartition(".")[2] in PER_CHANNEL
    differs = value.shape != grown.shape and not (name.startswith("encoder.") or kernel)
    if differs or (kernel and value.shape[1] != grown.shape[1]):
        raise UsageError(f"{path} differs from the recipe's model at {name}, which cannot grow")
