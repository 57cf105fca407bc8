"""The PyTorch networks: encoders, upsamplers and what joins them."""

from scaleport.models import encoders, upsamplers  # noqa: F401  (registers the built-in ones)
from scaleport.models.checkpoint import load_checkpoint, save_checkpoint
from scaleport.models.network import Network, build_network
from scaleport.models.registry import ENCODERS, UPSAMPLERS

__all__ = [
    "ENCODERS",
    "UPSAMPLERS",
    "Network",
    "build_network",
    "load_checkpoint",
    "save_checkpoint",
]
