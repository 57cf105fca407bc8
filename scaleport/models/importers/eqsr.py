"""Files of the EQSR project (neuralchen/EQSR)."""

from __future__ import annotations

from scaleport.models.importers.layouts import MEAN, Layout, Part, Plan, find_encoder, join
from scaleport.models.importers.reading import Description, Refused, State, size
from scaleport.models.importers.windowed import EQSR


def _kriging(state: State, features: int) -> Part:
    head = "upsample.head.0.weight"
    code = size(state, head, 1, 4) - features
    if code < 2 or (code - 2) % 4:
        raise Refused(f"{head} takes {code} values besides the features, which are no octaves")
    inner = {
        "norm1.body.*": "norm1.*",
        "conv1.*": "before.*",
        "attn.seblock.0.*": "involution.reduce.*",
        "attn.seblock.2.*": "involution.expand.*",
        "conv2.*": "after.*",
        "norm2.body.*": "norm2.*",
        "ffn.conv1.*": "fc1.*",
        "ffn.conv2.*": "fc2.*",
        "ffn.CA.conv.*": "channels.*",
    }
    rules = {"head.0.*": "head.*", "rbf1.lengthscale": "length", "to_rgb.1.*": "last.*"}
    rules |= {f"inv#.{theirs}": f"block#.{ours}" for theirs, ours in inner.items()}
    config = {
        "name": "kriging",
        "width": size(state, head, 0, 4),
        "groups": size(state, "upsample.inv1.attn.seblock.2.weight", 0, 4) // 9,
        "octaves": (code - 2) // 4,
    }
    return Part("", config, rules)


def _plan(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del description, scales
    encoder = find_encoder(state, "", (EQSR,))
    upsampler = _kriging(state, encoder.config["width"])
    return join(encoder, upsampler, MEAN, ("", "upsample."), (1.0, 8.0))


LAYOUT = Layout(
    "EQSR",
    "EQSR (neuralchen/EQSR)",
    ("conv_first.weight", "upsample.head.0.weight", "layers.0.residual_group.mbconv.net1.weight"),
    _plan,
)
