"""Upsamplers: networks from features to pixels at a requested scale. One module each."""

from scaleport.models.upsamplers import igconv, liif, spconv  # noqa: F401
