"""The page of ``docs/targets.md``: which operations of the shipped networks each target takes.

``python -m tools.targets_table BUNDLE...`` reads bundles of fixed shape and writes the page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scaleport.atomic import write_text
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import ScaleportError
from scaleport.validation.targets import Target, TargetReport, judge_target, targets

PAGE = Path("docs/targets.md")

_HEAD = """# Targets: NPUs, phones, browsers

Made by `python -m tools.targets_table`; do not edit it.

Processors beside the CPU take some operations and shapes and refuse others. `export --static`
writes [graphs of one shape](export.md#fixed-shapes), and `doctor` compares them with the lists of
the makers:

<!-- not run: tests/validation/test_targets.py runs doctor, tests/export/test_static.py exports -->
```bash
scaleport export scaleport-any --static 256x256 -o npu.bundle
scaleport doctor npu.bundle --target qnn
```

It prints every operation with a verdict and exits with 1 if one is not taken. Nothing is run: a
listed operation can still be refused for its types or sizes, which only the target's compiler
knows. None of these processors was available to us.

| target | processor | needs fixed shapes | the list |
|---|---|---|---|
"""

_WORDS = {"supported": "yes", "not": "**no**", "unknown": "?"}


def page(bundles: list[Bundle]) -> str:
    """The whole document."""
    known = targets()
    lines = [_HEAD.rstrip("\n")]
    for target in known.values():
        links = ", ".join(f"[{n}]({url})" for n, url in enumerate(target.sources, 1))
        shapes = "yes" if target.fixed_shapes else "no"
        row = (f"`{target.name}`", target.title, shapes, f"{target.basis} ({links})")
        lines.append(f"| {' | '.join(row)} |")
    lines += [
        "",
        "## The shipped networks",
        "",
        "fp32 and fp16, exported with `--static`; the operations of all graphs of a bundle.",
        "",
        "| network | target | operations | taken | not taken | not known |",
        "|---|---|---|---|---|---|",
    ]
    for bundle in bundles:
        for target in known.values():
            lines += [_row(bundle, report) for report in judge_target(bundle, target)]
    for target in known.values():
        lines += ["", f"## {target.title}", "", *_verdicts(bundles, target)]
    return "\n".join(lines) + "\n"


def _row(bundle: Bundle, report: TargetReport) -> str:
    counts = {"supported": 0, "not": 0, "unknown": 0}
    for row in report.rows:
        counts[row.verdict] += row.count
    refused = ", ".join(report.refused)
    cells = (
        f"`{bundle.manifest.name}` {report.precision}",
        f"`{report.target.name}`",
        str(sum(counts.values())),
        str(counts["supported"]),
        f"{counts['not']} ({refused})" if refused else "0",
        str(counts["unknown"]),
    )
    return f"| {' | '.join(cells)} |"


def _verdicts(bundles: list[Bundle], target: Target) -> list[str]:
    """Each operation of the networks with the target's verdict."""
    found: dict[str, tuple[str, str]] = {}
    for bundle in bundles:
        for report in judge_target(bundle, target):
            found |= {r.operation: (_WORDS[r.verdict], r.remark) for r in report.rows}
    lines = ["| operation | taken | remark |", "|---|---|---|"]
    return lines + [f"| {name} | {word} | {note} |" for name, (word, note) in sorted(found.items())]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    paths = sys.argv[1:] if arguments is None else arguments
    try:
        write_text(PAGE, page([open_bundle(Path(path)) for path in paths]))
    except ScaleportError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
