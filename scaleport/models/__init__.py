"""The PyTorch networks: encoders, upsamplers and what joins them.

Called as ``scaleport.models()`` it is :func:`scaleport.ready.models`, which lists the models that
can be named.
"""

from scaleport.callables import call_as
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

call_as(__name__, "scaleport.ready")
