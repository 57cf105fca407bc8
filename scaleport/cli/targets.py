"""What ``scaleport doctor --target`` says: which operations of a bundle a processor takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scaleport.errors import GateFailed, UsageError

if TYPE_CHECKING:
    from scaleport.bundle.reader import Bundle
    from scaleport.cli.output import Output
    from scaleport.validation.targets import TargetReport

_WORDS = {"supported": "supported", "not": "NOT supported", "unknown": "unknown"}


def show_target(out: Output, bundle: Bundle | None, name: str) -> None:
    """Print the table of a target.

    Raises:
        UsageError: if there is no bundle, no such target, or no graphs of its format.
        GateFailed: if the target does not take an operation.
    """
    from scaleport.validation.targets import find_target, judge_target

    target = find_target(name)
    if bundle is None:
        raise UsageError(f"--target {name} needs a bundle: scaleport doctor BUNDLE --target {name}")
    reports = judge_target(bundle, target)
    out.say(f"{bundle.path} on {target.title}")
    for report in reports:
        head = ("operation", "count", "verdict", "remark")
        rows = [(r.operation, str(r.count), _WORDS[r.verdict], r.remark) for r in report.rows]
        out.say_table([(f"{report.precision}: {head[0]}", *head[1:]), *rows])
    out.say(f"by: {target.basis}")
    for source in target.sources:
        out.say(f"source: {source}")
    plain = [_plain(report) for report in reports]
    out.result({"bundle": bundle.path, "target": _target(reports[0]), "reports": plain})
    problems = [f"{r.precision}: {', '.join(r.refused)}" for r in reports if r.refused]
    if problems:
        raise GateFailed(f"{target.title} is not known to take {'; '.join(problems)}")


def _target(report: TargetReport) -> dict[str, Any]:
    target = report.target
    return {
        "name": target.name,
        "title": target.title,
        "format": target.format,
        "basis": target.basis,
        "sources": target.sources,
    }


def _plain(report: TargetReport) -> dict[str, Any]:
    return {
        "precision": report.precision,
        "refused": report.refused,
        "unknown": report.unknown,
        "operations": report.rows,
    }
