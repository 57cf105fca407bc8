"""``scaleport inspect``: what a bundle or a checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from scaleport.catalogue import Entry, catalogue
from scaleport.cli.completing import complete_model
from scaleport.cli.models import described, say_card
from scaleport.cli.networks import TILING_WORDS, list_networks, part_names, show_network
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag, size_text
from scaleport.cli.strangers import Allow, VerifyKey
from scaleport.errors import UsageError
from scaleport.extras import needs
from scaleport.paths import holds
from scaleport.ready import Model, find_bundle, model, ready_bundles
from scaleport.shipped import find_checkpoint, license_of, shipped_weights

if TYPE_CHECKING:
    from scaleport.bundle.reader import Bundle

EXAMPLES = """\b
Examples:
  scaleport inspect scaleport-any
  scaleport inspect photo.bundle
  scaleport inspect photo.bundle --verify -q
  scaleport inspect scaleport-s --json
  scaleport inspect --models
  scaleport inspect --models 'rdn-*'
  scaleport inspect edsr-baseline-liif
"""


def inspect(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="BUNDLE|CHECKPOINT|NAME",
            autocompletion=complete_model,
            help="A bundle, a checkpoint, or the name of a model or of a network; "
            "with --models a pattern of names.",
        ),
    ] = None,
    models: Annotated[
        bool,
        typer.Option(
            "--models", help="List the networks that can be built, or those of a pattern."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Compare every file of a bundle with its hash, and check every graph."
        ),
    ] = False,
    allow: Allow = None,
    verify_key: VerifyKey = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Show a model, the contents of a bundle or checkpoint, or the networks that can be built."""
    out = Output(as_json, quiet, verbose)
    if models:
        list_networks(out, path)
    elif path is None:
        raise UsageError("give a bundle, a checkpoint or a network to inspect, or --models")
    elif holds((located := find_bundle(path)).is_dir):
        from scaleport.bundle.reader import open_bundle

        wanted: Literal["all", "lazy"] = "all" if verify else "lazy"
        bundle = open_bundle(located, wanted, allow or (), verify_key)
        named = ready_bundles().get(path) == located
        _inspect_bundle(out, bundle, verify, model(path) if named else None)
    else:
        if verify_key is not None:
            raise UsageError("--verify-key is for bundles; a checkpoint has no signature")
        network = None if holds(Path(path).exists) else _find_network(path)
        if network is None:
            _inspect_checkpoint(out, find_checkpoint(path))
        else:
            show_network(out, network)


def _find_network(name: str) -> Entry | None:
    """The network of a name, unless that is a shipped checkpoint's; None for neither.

    Raises:
        UsageError: if the name is nearly that of a network, or that of a part of networks.
    """
    if name in shipped_weights():
        return None
    known = catalogue()
    close = get_close_matches(name, [entry.name for entry in known.networks])
    found = known.find(name)
    if found is None and name in part_names():
        raise UsageError(
            f"{name} is a part, not a network; scaleport inspect --models shows its options"
        )
    if found is None and close:
        raise UsageError(f"there is no {name}; networks of a similar name: {', '.join(close)}")
    return found


def _inspect_bundle(out: Output, bundle: Bundle, verified: bool, named: Model | None) -> None:
    from scaleport.cli.contents import graph_groups, model_text, parity_groups, scale_text

    manifest = bundle.manifest
    groups = graph_groups(manifest)
    parity = None if manifest.parity is None else parity_groups(manifest.parity)
    total = sum(entry.bytes for entry in manifest.files.values())
    out.result(
        {
            "kind": "bundle",
            "path": bundle.path,
            "name": manifest.name,
            "family": manifest.family,
            "model": manifest.model,
            "parameters": manifest.parameters,
            "license": manifest.license,
            "scale": manifest.scale,
            "size_rule": manifest.size_rule,
            "height": manifest.height,
            "width": manifest.width,
            "receptive_field": manifest.receptive_field,
            "tiling": manifest.tiling,
            "graphs": groups,
            "skipped": manifest.skipped,
            "bytes": total,
            "tool_versions": manifest.tool_versions,
            "parity": parity,
            "format_version": manifest.format_version,
            "verified": verified,
            **({} if named is None else {**described(named), "scale": manifest.scale}),
        }
    )
    if named is None:
        out.say(f"{bundle.path}: {manifest.name}, {manifest.parameters:,} parameters")
    else:
        out.say(f"{shipped_weights()[named.name]}: {manifest.parameters:,} parameters")
        say_card(out, named)
        out.say(f"{bundle.path}")
    facts = [
        ("model", model_text(manifest.model)),
        ("family", manifest.family),
        ("scales", scale_text(manifest)),
        (
            "receptive field",
            f"{manifest.receptive_field} px around a pixel; {TILING_WORDS[manifest.tiling]}",
        ),
        ("engine sizes", f"height {_range(manifest.height)}, width {_range(manifest.width)}"),
        ("license", manifest.license or "not stated"),
        ("made with", ", ".join(f"{k} {v}" for k, v in sorted(manifest.tool_versions.items()))),
        ("files", f"{len(manifest.files)}, {size_text(total)}{', verified' if verified else ''}"),
    ]
    _say_table(out, facts)
    rows = [
        (
            g["format"],
            g["precision"],
            str(len(g["files"])),
            size_text(g["bytes"]),
            " ".join(g["stages"]),
        )
        for g in groups
    ]
    out.say("graphs")
    _say_table(out, [("format", "precision", "files", "size", "stages"), *rows])
    if out.verbose:
        out.say("files")
        _say_table(out, [(name, size_text(e.bytes)) for name, e in manifest.files.items()])
    if manifest.skipped:
        out.say("skipped")
        _say_table(out, list(manifest.skipped.items()))
    _say_parity(out, bundle, parity)


def _say_parity(out: Output, bundle: Bundle, parity: list[dict[str, Any]] | None) -> None:
    from scaleport.runtimes.base import precision_text

    if parity is None:
        out.say(f"parity: not measured yet; run scaleport validate {bundle.path}")
        return
    out.say("parity against PyTorch")
    figures = [
        (
            p["backend"],
            precision_text(p["precision"], p["inference_precision"]),
            f"{p['passed']} of {p['cases']}",
            _g(p["max_abs"]),
            _g(p["psnr"]),
            p["remark"],
        )
        for p in parity
    ]
    heads = ("backend", "precision", "passed", "max abs", "worst PSNR dB", "")
    _say_table(out, [heads, *figures])


def _inspect_checkpoint(out: Output, path: Path) -> None:
    with needs("torch", "inspecting a checkpoint"):
        from scaleport.models import load_checkpoint
        from scaleport.models.checkpoint import read_metadata
    from scaleport.cli.contents import model_text

    network = load_checkpoint(path)
    info = read_metadata(path)["info"]
    size = path.stat().st_size
    upsampler = network.upsampler
    out.result(
        {
            "kind": "checkpoint",
            "path": path,
            "family": upsampler.family,
            "model": network.config,
            "parameters": network.parameter_count(),
            "native_scales": upsampler.native_scales,
            "license": license_of(path, info),
            "info": info,
            "bytes": size,
        }
    )
    out.say(f"{path}: {network.parameter_count():,} parameters, {size_text(size)}")
    limits = f"x{network.limits.min:g} to x{network.limits.max:g}"
    natives = ", ".join(f"x{scale}" for scale in upsampler.native_scales)
    facts = [
        ("model", model_text(network.config)),
        ("family", upsampler.family),
        ("scales", f"{limits}; rendered at {natives}" if natives else limits),
        ("license", license_of(path, info) or "not stated"),
    ]
    _say_table(out, facts)
    if isinstance(info, dict) and info:
        out.say("info")
        _say_info(out, info, "  ")


_DEEPEST_INDENT = 10
"""Beyond it nested values are shown as Python writes them: a checkpoint may come from anywhere."""


def _say_info(out: Output, info: dict[str, Any], indent: str) -> None:
    """What a checkpoint's maker wrote into it: plain values first, below them what is nested."""
    shallow = len(indent) <= _DEEPEST_INDENT
    nested = {k: value for k, value in info.items() if value and shallow and _is_nested(value)}
    plain = [(str(key), str(value)) for key, value in info.items() if key not in nested]
    out.say_table(plain, indent)
    for key, value in nested.items():
        out.say(f"{indent}{key}")
        deeper = indent + "  "
        if isinstance(value, dict):
            _say_info(out, value, deeper)
        else:
            heads = list(dict.fromkeys(head for entry in value for head in entry))
            rows = [[str(entry.get(head, "-")) for head in heads] for entry in value]
            out.say_table([list(map(str, heads)), *rows], deeper)


def _is_nested(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(entry, dict) for entry in value)
    return isinstance(value, dict)


def _say_table(out: Output, rows: Sequence[Sequence[str]]) -> None:
    out.say_table(rows or [("none",)])


def _range(axis: Any) -> str:
    return f"{axis.min}:{axis.opt}:{axis.max}"


def _g(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
