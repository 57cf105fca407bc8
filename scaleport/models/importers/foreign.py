"""Any fixed-scale network that the package ``spandrel`` knows, kept as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scaleport.errors import UsageError
from scaleport.models.encoders.foreign import Foreign, describe, pad_like_spandrel
from scaleport.models.importers.layouts import PLAIN, Imported
from scaleport.models.importers.reading import Refused, State
from scaleport.models.importers.wrapping import without_prefixes
from scaleport.models.network import build_network

_CLOSE = 1e-5
"""Difference up to which two ways of padding are the same, relative to the largest sample."""


def import_foreign(state: State) -> Imported:
    """Make a network of weights that spandrel recognises.

    The checkpoint holds the weights as the network itself names them and, to build it again, the
    shapes of those in the file; both together must give the network that spandrel made.

    Raises:
        Refused: if the network built again is another one.
        UsageError: if spandrel is missing, or does not know the weights.
        BackendError: if spandrel cannot be imported.
    """
    state, found = _recognised(state)
    scale, model = int(found.scale), found.model.float().eval()
    weights = model.state_dict()
    title = str(found.architecture.name)
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise Refused(f"{name} holds NaN or infinity")
    multiple, minimum = _needs(found, model, scale)
    config = {
        "encoder": {
            "name": "spandrel",
            "shapes": {name: list(value.shape) for name, value in state.items()},
            "scale": scale,
            "multiple": multiple,
            "minimum": minimum,
        },
        "upsampler": {"name": "shuffle", "scale": scale},
        "normalisation": PLAIN,
        "scale": {"min": 1.0, "max": float(scale)},
    }
    network = build_network(config).eval()
    encoder = network.encoder
    assert isinstance(encoder, Foreign)
    try:
        encoder.model.load_state_dict(weights)
    except RuntimeError as error:
        raise Refused(_unlike(title)) from error
    torch.manual_seed(0)
    side = max(8, encoder.minimum)
    image = torch.rand(1, 3, 2 * side, 3 * side)
    with torch.no_grad():
        if not _alike(encoder.model(image), model(image)):
            raise Refused(_unlike(title))
    assumed = ["pixels go in and come out in [0, 1], as spandrel says"]
    if encoder.multiple > 1:
        assumed.append(f"images are padded to multiples of {encoder.multiple}")
    if encoder.minimum > encoder.multiple:
        assumed.append(f"images are padded to at least {encoder.minimum} pixels a side")
    return Imported(network, f"{title}-x{scale}", "spandrel", tuple(assumed))


def _recognised(state: State) -> tuple[State, Any]:
    """The weights by the names that spandrel knows them by, and what it makes of them."""
    first: UsageError | None = None
    for names in without_prefixes(state):
        try:
            return names, describe(names)
        except UsageError as error:
            first = first or error
    assert first is not None
    raise first


def _needs(found: Any, model: nn.Module, scale: int) -> tuple[int, int]:
    """What sides of images must be multiples of, and the smallest side.

    Where a network takes every size, its own answers count, and padding that changes them is
    wrong: spandrel asks for more than some networks need. The largest padding that makes no
    difference is chosen, as the network then has nothing left to pad in ways that no graph holds.
    """
    said = int(found.size_requirements.multiple_of)
    least = max(1, int(found.size_requirements.minimum))
    side = max(least, 8) // said * said + said
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.rand(1, 3, side + rows, side + cols, generator=generator)
        for rows, cols in ((1, said - 1), (said // 2 + 1, 1))
    ]
    own = [_answer(model, image, scale) for image in images]
    multiple = said
    if all(answer is not None for answer in own):
        for tried in (m for m in range(said, 1, -1) if said % m == 0):
            padded = [_answer(model, image, scale, tried) for image in images]
            if all(_close(a, b) for a, b in zip(padded, own, strict=True)):
                multiple = tried
                break
    smallest = torch.rand(1, 3, multiple, multiple, generator=generator)
    needs_no_more = _answer(model, smallest, scale) is not None
    return multiple, multiple if needs_no_more else max(least, multiple)


def _answer(model: nn.Module, image: Tensor, scale: int, multiple: int = 1) -> Tensor | None:
    """What a network makes of an image; None if it does not take it."""
    height, width = image.shape[2:]
    with torch.no_grad():
        try:
            out: Tensor = model(pad_like_spandrel(image, multiple, 1))
        except Exception:  # whatever foreign code raises on a size that it was not made for
            return None
    out = out[:, :, : height * scale, : width * scale]
    fits = tuple(out.shape) == (1, 3, height * scale, width * scale)
    return out if fits and bool(out.isfinite().all()) else None


def _close(got: Tensor | None, want: Tensor | None) -> bool:
    if got is None or want is None:
        return False
    return float((got - want).abs().max()) <= _CLOSE * max(1.0, float(want.abs().max()))


def _alike(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and bool(torch.allclose(got, want, rtol=1e-4, atol=1e-5))


def _unlike(title: str) -> str:
    return f"the {title} that spandrel builds from the shapes of its weights is another one"
