"""Any fixed-scale network that the package ``spandrel`` knows, kept as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from scaleport.models.encoders.foreign import Foreign, describe
from scaleport.models.importers.layouts import PLAIN, Imported
from scaleport.models.importers.reading import Refused, State
from scaleport.models.network import build_network

_SIDES = 2, 3


FOREIGN_PLACES = ("params_ema", "params-ema", "params", "state_dict", "model")
"""Where weights may lie in files of all kinds."""


def import_foreign(state: State) -> Imported:
    """Make a network of weights that spandrel recognises.

    The checkpoint holds the weights as the network itself names them and, to build it again, the
    shapes of those in the file; both together must give the network that spandrel made.

    Raises:
        Refused: if the network built again is another one.
        UsageError: if spandrel is missing, or does not know the weights.
    """
    found = describe(state)
    scale = int(found.scale)
    config = {
        "encoder": {"name": "spandrel", "shapes": _shapes(state), "scale": scale},
        "upsampler": {"name": "shuffle", "scale": scale},
        "normalisation": PLAIN,
        "scale": {"min": 1.0, "max": float(scale)},
    }
    network = build_network(config).eval()
    encoder = network.encoder
    assert isinstance(encoder, Foreign)
    model = found.model.float().eval()
    weights = model.state_dict()
    title = str(found.architecture.name)
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise Refused(f"{name} holds NaN or infinity")
    try:
        encoder.model.load_state_dict(weights)
    except RuntimeError as error:
        raise Refused(_unlike(title)) from error
    torch.manual_seed(0)
    image = torch.rand(1, 3, *(side * max(8, encoder.multiple) for side in _SIDES))
    with torch.no_grad():
        if not _alike(encoder.model(image), model(image)):
            raise Refused(_unlike(title))
    assumed = (
        "pixels go in and come out in [0, 1], as spandrel says",
        *([f"images are padded to multiples of {encoder.multiple}"] * (encoder.multiple > 1)),
    )
    return Imported(network, f"{title}-x{scale}", "spandrel", assumed)


def _shapes(state: State) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in state.items()}


def _alike(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and bool(torch.allclose(got, want, rtol=1e-4, atol=1e-5))


def _unlike(title: str) -> str:
    return f"the {title} that spandrel builds from the shapes of its weights is another one"
