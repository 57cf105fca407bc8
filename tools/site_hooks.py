"""Hooks of ``make docs``: pages made from the program, and links that leave ``docs/``.

MkDocs calls the functions below by their names. A page in ``docs/`` may link to any file of the
repository, as readers of the repository expect: Markdown files become pages under ``project/``,
other files are copied there.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PROJECT = "project"
"""Where files from outside of ``docs/`` lie on the site."""

COMMANDS = "reference/commands.md"
PYTHON = "reference/python.md"
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def _source_of(address: str) -> str:
    """Where in the repository a file of the site comes from."""
    if address.startswith(f"{PROJECT}/"):
        return address.removeprefix(f"{PROJECT}/")
    return f"docs/{address}"


def _address_of(source: str) -> str:
    """Where on the site a file of the repository lies."""
    if source == "README.md":
        return "index.md"
    return source.removeprefix("docs/") if source.startswith("docs/") else f"{PROJECT}/{source}"


def _targets(text: str, source: str) -> dict[str, str]:
    """Links of a page to files that exist, and the files, relative to the repository."""
    found = {}
    for _, link, _ in _LINK.findall(text):
        if not re.match(r"[a-z]+:", link):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
            if (ROOT / target).is_file():
                found[link] = target
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of ``docs/`` that pages link to, and what those link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    while waiting:
        source = waiting.pop()
        text = (ROOT / source).read_text(encoding="utf-8")
        for target in _targets(text, source).values():
            address = _address_of(target)
            if files.get_file_from_path(address) is None:
                added = File.generated(config, address, abs_src_path=str(ROOT / target))
                added.inclusion = InclusionLevel.NOT_IN_NAV
                files.append(added)
                if target.endswith(".md"):
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's copies, and write the reference of the command line."""
    del config, files
    address = page.file.src_uri
    if address == COMMANDS:
        markdown += commands()
    elif address == PYTHON:
        markdown += unlisted(markdown)
    here = posixpath.dirname(address)
    targets = _targets(markdown, _source_of(address))

    def relinked(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        if link not in targets:
            return match[0]
        return before + posixpath.relpath(_address_of(targets[link]), here or ".") + after

    return _LINK.sub(relinked, markdown)


def unlisted(markdown: str) -> str:
    """Public names that the reference of Python does not list yet, in a section of their own."""
    import scaleport

    listed = set(re.findall(r"^::: scaleport\.(?:\w+\.)*(\w+)$", markdown, re.MULTILINE))
    listed |= set(re.findall(r"^ +- (\w+)$", markdown, re.MULTILINE))
    names = [n for n in scaleport.__all__ if n not in listed and not n.startswith("_")]
    return (
        "".join(["\n## Further names\n"] + [f"\n::: scaleport.{n}\n" for n in names])
        if names
        else ""
    )


def commands() -> str:
    """The reference of the command line in Markdown: every verb with all that it takes."""
    from typer.main import get_command

    from scaleport.cli.main import PROGRAM, VERBS, app

    group: Any = get_command(app)
    parts = []
    with group.make_context(PROGRAM, ["--version"], resilient_parsing=True) as context:
        for name in VERBS:
            command = group.get_command(context, name)
            with command.make_context(name, [], parent=context, resilient_parsing=True) as own:
                parts.append(_verb(command, own))
    return "\n".join(parts)


def _verb(command: Any, context: Any) -> str:
    records = {
        kind: [
            record
            for parameter in command.params
            if parameter.param_type_name == kind
            and (record := parameter.get_help_record(context)) is not None
        ]
        for kind in ("argument", "option")
    }
    usage = " ".join([command.name, *(name for name, _ in records["argument"]), "[OPTIONS]"])
    lines = [f"\n## {command.name}\n", _prose(command.help), f"```text\nscaleport {usage}\n```\n"]
    lines += ["| | |", "|---|---|"]
    lines += [
        f"| {_code(name)} | {_text(said)} |" for names in records.values() for name, said in names
    ]
    if command.epilog:
        lines.append(f"\n{_examples(command.epilog)}")
    return "\n".join(lines) + "\n"


def _prose(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n")) + "\n"


def _code(text: str) -> str:
    # Between backquotes, tables would show the backslash that keeps "|" from ending a cell.
    return f"<code>{html.escape(' '.join(text.split())).replace('|', '&#124;')}</code>"


def _text(text: str) -> str:
    """Plain text as Markdown that shows it as it is."""
    return re.sub(r"([*_<\[`|])", r"\\\1", " ".join(text.split()))


def _examples(epilog: str) -> str:
    lines = [line for line in epilog.replace("\b", "").splitlines() if line.strip()]
    shown = "\n".join(line.strip() for line in lines if line.strip().startswith("scaleport "))
    return f"```text\n{shown}\n```" if shown else ""
