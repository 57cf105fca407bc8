"""HIIF behind the encoders of the LIIF project."""

from __future__ import annotations

from scaleport.models.importers.layouts import HALF, Layout, Part, Plan, check_description, join
from scaleport.models.importers.liif import ANY_SCALE, ENCODER, find_liif_encoder
from scaleport.models.importers.reading import Description, Refused, State, count, size
from scaleport.models.importers.settings import Assumed


def _plan(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del scales
    check_description(description, ("hiif", "hiifv3"), {})
    width = size(state, "freq.weight", 0, 4)
    attentions = count(state, "conv#.qkv_proj.weight")
    depth = size(state, "conv0.kln.weight", 0, 1) if attentions else width
    if width % depth:
        raise Refused(f"conv0.kln.weight has {depth} values, which do not divide {width}")
    config = {
        "name": "hiif",
        "width": width,
        "levels": count(state, "fc_layers.#.norm.weight"),
        "heads": width // depth,
        "attentions": attentions,
    }
    inner = {
        "qkv_proj.*": "qkv.*",
        "kln.*": "norm_k.*",
        "vln.*": "norm_v.*",
        "proj1.*": "fc1.*",
        "proj2.*": "fc2.*",
    }
    rules = {"freq.*": "project.*"}
    rules |= {f"fc_layers.#.{part}.*": f"levels.#.{part}.*" for part in ("norm", "fc1", "fc2")}
    rules |= {f"conv#.{theirs}": f"attention.#.{ours}" for theirs, ours in inner.items()}
    text = (
        "local coordinates are shifted by 1e-4 LR pixels, off the borders of their digits, where "
        "the published floats decide by rounding"
    )
    assumed = (Assumed(text),)
    upsampler = Part("HIIF", config, rules, assumed=assumed)
    encoder = find_liif_encoder(state, description)
    return join(encoder, upsampler, HALF, (ENCODER, ""), ANY_SCALE)


LAYOUT = Layout(
    "EDSR- or RDN-HIIF",
    "HIIF (the authors' code)",
    ("freq.weight", "fc_layers.0.norm.weight"),
    _plan,
)
