"""Making the catalogue of named networks, and the table of it in ``docs/models.md``.

Run it after adding or changing a composition, an encoder or an upsampler::

    python -m tools.catalogue --write

It takes about a quarter of an hour; with ``--changed`` only networks whose configuration is new are
counted, which is right as long as no encoder or upsampler has changed. Weights play no part:
networks are built with fresh ones.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from scaleport.atomic import write_text
from scaleport.catalogue import (
    COMMAND,
    FAMILIES,
    FILE,
    Catalogue,
    Entry,
    Family,
    Tiles,
    catalogue,
)
from scaleport.errors import OutputError
from scaleport.models.compositions import COMPOSITIONS, Composition
from scaleport.models.macs import count
from scaleport.models.network import Network, build_network
from scaleport.models.registry import ENCODERS, UPSAMPLERS, Registry

DOCUMENT = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- begin generated: networks -->", "<!-- end generated: networks -->"
_FIXED = {"encoder": (), "upsampler": ("in_channels",)}


def config_hash(config: dict[str, Any]) -> str:
    """Hash of a configuration, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def entry(composition: Composition) -> Entry:
    """Everything the catalogue says of a composition. Takes seconds."""
    network = build_network(composition.config)
    return Entry(
        name=composition.name,
        family=_family(network),
        paper=composition.paper,
        parameters=network.parameter_count(),
        scale=network.limits,
        tiling=Tiles(network.tiling.kind, _reasons(network)),
        rewrites=(*network.encoder.rewrites, *network.upsampler.rewrites),
        macs=count(network),
        refusal=network.export_refusal,
        refused_formats=dict(network.encoder.refused_formats),
        config=composition.config,
        config_sha256=config_hash(composition.config),
    )


def _family(network: Network) -> Family:
    if network.upsampler.family == "query":
        return "any scale"
    return "several scales" if len(network.upsampler.native_scales) > 1 else "one scale"


def _reasons(network: Network) -> tuple[str, ...]:
    """The reasons of all parts that are as strict as the network."""
    parts = (network.encoder.tiling, network.upsampler.tiling)
    reasons = [part.reason for part in parts if part.kind == network.tiling.kind]
    return tuple(dict.fromkeys(filter(None, reasons)))


def options(registry: Registry[Any]) -> dict[str, dict[str, Any]]:
    """Options of every registered class with their defaults."""
    return {
        name: {
            option: "required" if default is inspect.Parameter.empty else default
            for option, default in registry.options(name).items()
            if option not in _FIXED[registry.kind]
        }
        for name in registry
        if not registry.origin(name)
    }


def make(compositions: Iterable[Composition], kept: Catalogue | None = None) -> Catalogue:
    """The catalogue of these compositions, by family, with the options of all parts there are.

    Args:
        compositions: what to count.
        kept: a catalogue whose entries are taken over where the configuration is still the same.
    """
    known = {} if kept is None else {found.config_sha256: found for found in kept.networks}
    networks = []
    for composition in compositions:
        found = known.get(config_hash(composition.config))
        if found is None or (found.name, found.paper) != (composition.name, composition.paper):
            found = entry(composition)
        networks.append(found)
    order = list(FAMILIES)
    networks.sort(key=lambda found: order.index(found.family))
    return Catalogue(options(ENCODERS), options(UPSAMPLERS), tuple(networks))


def table(networks: Iterable[Entry]) -> str:
    """The section of ``docs/models.md`` between its markers."""
    lines = []
    rewrites: dict[str, int] = {}
    networks = list(networks)
    for found in networks:
        for rewrite in found.rewrites:
            rewrites.setdefault(rewrite, len(rewrites) + 1)
    for family, answers in FAMILIES.items():
        lines += [
            "",
            f"### {family.capitalize()}: {answers}",
            "",
            "| network | parameters | scale | training | deploy | ratio | upsampler's ratio "
            "| rewrites |",
            "|---|--:|--:|--:|--:|--:|--:|---|",
        ]
        for found in networks:
            if found.family != family:
                continue
            macs, scale = found.macs, found.macs.scale
            before, after = macs.training, macs.deploy
            cells = (
                found.name,
                f"{found.parameters:,}".replace(",", " "),
                f"x{scale}",
                thousands(before.total(scale)),
                thousands(after.total(scale)),
                f"{before.total(scale) / after.total(scale):.2f}",
                f"{before.decoder(scale) / after.decoder(scale):.2f}",
                " ".join(str(rewrites[r]) for r in found.rewrites) or "none",
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Rewrites:", ""]
    lines += [f"{number}. {words}" for words, number in rewrites.items()]
    return "\n".join([BEGIN, *lines, "", END])


def thousands(macs: float) -> str:
    """Multiply-adds in thousands, with a decimal below a hundred thousand."""
    return f"{macs / 1e3:.1f}" if macs < 1e5 else f"{macs / 1e3:.0f}"


def in_document(text: str, section: str) -> str:
    """A document with its generated section replaced.

    Raises:
        OutputError: if it has no markers.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise OutputError(f"{DOCUMENT.name} has lost its markers {BEGIN} and {END}")
    return head + section + tail


def main() -> None:
    """Write the file of the package and the table of the document."""
    from rich.console import Console
    from rich.progress import track

    parser = argparse.ArgumentParser(prog=COMMAND.removesuffix(" --write"), description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="replace both files")
    parser.add_argument(
        "--changed", action="store_true", help="count only networks with a new configuration"
    )
    arguments = parser.parse_args()
    counted = track(
        COMPOSITIONS.values(),
        "counting",
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    made = make(counted, catalogue() if arguments.changed else None)
    data = msgspec.json.format(msgspec.json.encode(made), indent=1)
    document = in_document(DOCUMENT.read_text(encoding="utf-8"), table(made.networks))
    write_text(FILE, data.decode() + "\n")
    write_text(DOCUMENT, document)


if __name__ == "__main__":
    main()
