"""Upsamplers: networks from features to pixels at a requested scale. One module each."""

from scaleport.models.upsamplers import hiif, igconv, liif, metasr, spconv  # noqa: F401
