"""Upsamplers: networks from features to pixels at a requested scale. One module each."""

from scaleport.models.upsamplers import (
    hiif,  # noqa: F401
    igconv,  # noqa: F401
    igconv_plus,  # noqa: F401
    ipe_liif,  # noqa: F401
    ipe_metasr,  # noqa: F401
    kriging,  # noqa: F401
    liif,  # noqa: F401
    lte,  # noqa: F401
    metasr,  # noqa: F401
    msit,  # noqa: F401
    shuffle,  # noqa: F401
    spconv,  # noqa: F401
    spconv_plus,  # noqa: F401
    thera,  # noqa: F401
)
