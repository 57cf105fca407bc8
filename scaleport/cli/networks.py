"""What ``scaleport inspect`` says of the networks that can be built."""

from __future__ import annotations

import inspect as introspection
import json
import textwrap
from collections.abc import Sequence
from typing import Any

import msgspec

from scaleport import plugins
from scaleport.catalogue import FAMILIES, Catalogue, Counts, Entry, catalogue
from scaleport.cli.output import Output, columns, size_text, table
from scaleport.errors import BackendError, UsageError
from scaleport.export.formats import ANY_SHAPE, FIXED_ONLY
from scaleport.shipped import shipped_weights

TILING = {"exact": "exact", "approximate": "approx", "not-allowed": "no"}
TILING_WORDS = {
    "exact": "tiles give the same pixels as the whole image",
    "approximate": "tiles give nearly the same pixels as the whole image",
    "not-allowed": "cannot be cut into tiles",
}


def list_networks(out: Output, pattern: str | None) -> None:
    """All networks by family, or those whose name fits a pattern.

    Raises:
        UsageError: if none does.
    """
    known = catalogue()
    entries = list(known.networks) if pattern is None else known.matching(pattern)
    if not entries:
        raise UsageError(
            f"no network is named {pattern}; scaleport inspect --models lists all of them"
        )
    runs = backends()
    found: dict[str, Any] = {"networks": [_facts(entry, runs) for entry in entries]}
    if pattern is None:
        found |= {
            "formats": runs,
            "encoders": known.encoders,
            "upsamplers": known.upsamplers,
            "plugins": _plugins(),
            "shipped": shipped_weights(),
        }
    out.result(found)
    if out.json or out.quiet:
        return
    _say_networks(out, entries, runs)
    if pattern is None:
        _say_parts(out, known, found["plugins"])


def show_network(out: Output, entry: Entry) -> None:
    """One network in detail, with the configuration that it is built and trained from."""
    runs = backends()
    facts = _facts(entry, runs)
    out.result({"kind": "network", **facts})
    natives = ", ".join(f"x{scale}" for scale in entry.scale.native)
    limits = f"x{entry.scale.min:g} to x{entry.scale.max:g} per axis"
    answers = f"{limits}; rendered at {natives}" if natives else f"{limits}, any real number"
    tiling = TILING_WORDS[entry.tiling.kind]
    exports = ", ".join(facts["formats"]) or f"nothing: {entry.refusal}"
    for reason in dict.fromkeys(entry.refused_formats.values()):
        names = (name for name, why in entry.refused_formats.items() if why == reason)
        exports += f"; not to {' or '.join(names)}: {reason}"
    rows = [
        ("paper", f"arXiv {entry.paper}" if entry.paper[:4].isdigit() else entry.paper),
        ("scales", answers),
        ("tiling", ": ".join(filter(None, (tiling, "; ".join(entry.tiling.reasons))))),
        ("exports to", exports),
        ("runs on", ", ".join(facts["backends"]) or "PyTorch, in Python only"),
        ("deploy form", "; ".join(entry.rewrites) or "as the training form"),
    ]
    out.say(f"{entry.name}: {entry.parts}, {entry.parameters:,} parameters")
    for label, text in rows:
        _wrapped(out, f"{label.ljust(11)}  {text}", 15)
    _say_macs(out, entry.macs)
    out.say("configuration, as a training recipe takes it")
    out.say("model:")
    for key, value in entry.config.items():
        # A mapping in JSON is one in YAML too.
        out.say(f"  {key}: {json.dumps(value)}")


def _say_macs(out: Output, macs: Counts) -> None:
    out.say(f"multiply-adds at x{macs.scale}, matrix products and convolutions only")
    forms = [("training", macs.training, macs.training.render)]
    if macs.deploy_general is None or macs.deploy_general == macs.deploy.render:
        forms.append(("deploy", macs.deploy, macs.deploy.render))
    else:
        forms.append((f"deploy, x{macs.scale} frozen", macs.deploy, macs.deploy.render))
        forms.append(("deploy, any scale", macs.deploy, macs.deploy_general))
    head = ("form", "once per scale", "encode per LR px", "render per HR px", "both per HR px")
    body = [
        (
            name,
            short(work.prepare) if work.prepare else "-",
            short(work.encode),
            short(render),
            short(work.encode / macs.scale**2 + render),
        )
        for name, work, render in forms
    ]
    for line in table([head, *body], numbers=slice(1, None)):
        out.say(line)


def part_names() -> set[str]:
    """Names of all encoders and upsamplers, those of other packages too."""
    known, groups = catalogue(), (plugins.ENCODERS, plugins.UPSAMPLERS)
    others = (name for group in groups for name in plugins.claims(group))
    return {*known.encoders, *known.upsamplers, *others}


def backends() -> dict[str, list[str]]:
    """Formats of graphs of every size, each with the backends that run it."""
    from scaleport.runtimes.registry import backend_names, get_backend

    found: dict[str, list[str]] = {name: [] for name in ANY_SHAPE}
    for name in backend_names():
        try:
            form = get_backend(name).graph_format
        except BackendError:
            continue  # doctor says why
        # The torch backend needs a bundle, and every bundle holds what it loads.
        if form not in FIXED_ONLY:
            found.setdefault(form, []).append(name)
    return found


def short(macs: float) -> str:
    """A count in three digits or four: 812, 44.9k, 1.38M, 2.42G."""
    value, units = macs, ["", "k", "M", "G", "T"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    digits = 0 if value >= 99.95 or not units[0] else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{units[0]}"


def _facts(entry: Entry, runs: dict[str, list[str]]) -> dict[str, Any]:
    formats = [] if entry.refusal else [f for f in ANY_SHAPE if f not in entry.refused_formats]
    held = [] if entry.refusal else [f for f in runs if f not in entry.refused_formats]
    able = sorted({name for form in held for name in runs[form]})
    plain: dict[str, Any] = msgspec.to_builtins(entry)
    return {**plain, "formats": formats, "backends": able}


def _say_networks(out: Output, entries: list[Entry], runs: dict[str, list[str]]) -> None:
    notes = _reasons(entries)
    layouts = (_wide, _without_papers, _narrow)
    for layout in layouts:
        heads = layout(None, notes)
        rows = [cells for entry in entries for cells in layout(entry, notes)]
        numbers = slice(1, -3 if layout is _wide else -2)
        lines = table([*heads, *rows], indent=" ", numbers=numbers)
        if max(map(len, lines)) <= _columns():
            break
    for line in lines[: len(heads)]:
        out.say(line)
    said = ""
    for entry, line in zip(entries, lines[len(heads) :], strict=True):
        if entry.family != said:
            said = entry.family
            out.say()
            out.say(f"{said}: {FAMILIES[entry.family]}")
        out.say(line)
    out.say()
    for reason, number in notes.items():
        _wrapped(out, f"({number}) {reason}", 6)
    taken = [f"{name} ({' '.join(able)})" for name, able in runs.items() if name in ANY_SHAPE]
    counted = "encode per LR pixel and render per output (HR) pixel"
    if layout is _narrow:
        counted = "encode and render together per output (HR) pixel"
    for text in (
        f"Multiply-adds are those of matrix products and convolutions, {counted}, at x4 or the "
        "largest scale of a network of fixed scale; deploy form with that scale frozen where the "
        "network allows it.",
        f"Export writes {', '.join(taken)}; the torch backend runs every bundle. With fixed shapes "
        f"(--static) it also writes {', '.join(FIXED_ONLY)} where that is asked for.",
        "scaleport inspect NAME shows one network in full, with the configuration to train it; "
        "scaleport inspect --models 'rdn-*' lists a few.",
    ):
        _wrapped(out, text, 2)


def _reasons(entries: list[Entry]) -> dict[str, int]:
    """Why networks do not tile exactly or are not exported, numbered as they come."""
    notes: dict[str, int] = {}
    for entry in entries:
        refusals = (entry.refusal, *entry.refused_formats.values())
        for reason in filter(None, (*entry.tiling.reasons, *refusals)):
            notes.setdefault(reason, len(notes) + 1)
    return notes


def _wide(entry: Entry | None, notes: dict[str, int]) -> list[list[str]]:
    rows = _without_papers(entry, notes)
    paper = "paper" if entry is None else entry.paper
    return [*([*row, ""] for row in rows[:-1]), [*rows[-1], paper]]


def _without_papers(entry: Entry | None, notes: dict[str, int]) -> list[list[str]]:
    if entry is None:
        top = ["", "", "training", "", "deploy", "", "", "", ""]
        pairs = ["LR px", "HR px", "LR px", "HR px"]
        return [top, ["", "params", *pairs, "scale", "tiling", "export"]]
    before, after = entry.macs.training, entry.macs.deploy
    counts = (entry.parameters, before.encode, before.render, after.encode, after.render)
    return [[entry.name, *map(short, counts), *_words(entry, notes)]]


def _narrow(entry: Entry | None, notes: dict[str, int]) -> list[list[str]]:
    if entry is None:
        return [["", "params", "train", "deploy", "scale", "tiling", "export"]]
    totals = [form.total(entry.macs.scale) for form in (entry.macs.training, entry.macs.deploy)]
    *words, export = (word.replace("(", "").replace(")", "") for word in _words(entry, notes))
    if entry.refused_formats and not entry.refusal:
        # The note says which format it is.
        export = f"part {export.split()[-1]}"
    return [[entry.name, *map(short, (entry.parameters, *totals)), *words, export]]


def _words(entry: Entry, notes: dict[str, int]) -> tuple[str, str, str]:
    def noted(word: str, *reasons: str) -> str:
        numbers = ",".join(str(notes[reason]) for reason in reasons)
        return f"{word} ({numbers})" if numbers else word

    scale = entry.scale
    scales = f"x{scale.min:g}-{scale.max:g}"
    if scale.native:
        scales = "x" + ",".join(map(str, scale.native))
    tiling = noted(TILING[entry.tiling.kind], *entry.tiling.reasons)
    if entry.refusal:
        return scales, tiling, noted("no", entry.refusal)
    left_out = entry.refused_formats
    word = f"not {', '.join(left_out)}" if left_out else "yes"
    return scales, tiling, noted(word, *dict.fromkeys(left_out.values()))


def _say_parts(out: Output, known: Catalogue, others: list[dict[str, Any]]) -> None:
    for role, classes in (("encoders", known.encoders), ("upsamplers", known.upsamplers)):
        out.say()
        out.say(f"{role} and their options")
        _options(out, [(name, options) for name, options in classes.items()])
    if others:
        out.say()
        out.say("plug-ins")
        _say(
            out,
            [
                (p["kind"], p["name"], p["package"], p["problem"] or _text(p["options"]))
                for p in others
            ],
        )
    out.say()
    out.say("shipped checkpoints")
    weights = shipped_weights()
    _say(out, [(name, size_text(path.stat().st_size)) for name, path in weights.items()])


def _options(out: Output, rows: list[tuple[str, dict[str, Any]]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, options in rows:
        _wrapped(out, f"{name.ljust(width)}  {_text(options)}", width + 4)


def _text(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "no options"


def _plugins() -> list[dict[str, Any]]:
    """What other packages bring; it takes torch to say more than their names."""
    found = []
    for kind, group in (("encoder", plugins.ENCODERS), ("upsampler", plugins.UPSAMPLERS)):
        for name, points in plugins.claims(group).items():
            options, problem = _examined(kind, name)
            package = plugins.origins(points)
            fields = {"kind": kind, "name": name, "package": package}
            found.append({**fields, "options": options, "problem": problem})
    return found


def _examined(kind: str, name: str) -> tuple[dict[str, Any], str]:
    try:
        from scaleport.models import ENCODERS, UPSAMPLERS
    except ImportError as error:
        return {}, f"options are not known without {error.name}"
    registry = ENCODERS if kind == "encoder" else UPSAMPLERS
    refused = registry.refused()
    if name in refused:
        return {}, refused[name]
    empty = introspection.Parameter.empty
    given = {o: "required" if v is empty else v for o, v in registry.options(name).items()}
    given.pop("in_channels", None)
    return given, ""


def _columns() -> int:
    return min(columns(120), 120)


def _wrapped(out: Output, text: str, hang: int) -> None:
    lines = textwrap.wrap(
        text,
        max(_columns(), 40),
        initial_indent="  ",
        subsequent_indent=" " * hang,
        break_on_hyphens=False,
        break_long_words=False,
    )
    for line in lines:
        out.say(line)


def _say(out: Output, rows: Sequence[Sequence[str]]) -> None:
    for line in table(rows):
        out.say(line)
