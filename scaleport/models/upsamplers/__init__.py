"""Upsamplers: networks from features to pixels at a requested scale. One module each."""

from scaleport.models.upsamplers import igconv, liif, metasr, spconv  # noqa: F401
