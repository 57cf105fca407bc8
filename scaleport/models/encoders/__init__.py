"""Encoders: networks from an image to features at LR size. One module each."""

from scaleport.models.encoders import (
    edsr,  # noqa: F401
    eqsr,  # noqa: F401
    foreign,  # noqa: F401
    hiet,  # noqa: F401
    hit,  # noqa: F401
    mambairv2,  # noqa: F401
    rcan,  # noqa: F401
    rdn,  # noqa: F401
    refined,  # noqa: F401
    smfanet,  # noqa: F401
    srformer,  # noqa: F401
    swinir,  # noqa: F401
)
