from __future__ import annotations

import re
import shlex

import pytest
from typer.main import get_command

from scaleport import __version__
from scaleport.cli.main import VERBS, app, main


def examples(text: str) -> list[str]:
    return re.findall(r"^\s*scaleport (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_verb_ends_in_an_example_of_it(run, verb: str, flag: str) -> None:
    ran = run(f"{verb} {flag}")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: scaleport {verb} ")
    assert examples(ran.out.split("Example")[-1])[0].startswith(verb)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_examples_of_the_help_are_accepted_by_the_parser(run, verb: str) -> None:
    shown = examples(run(f"{verb} --help").out.split("Example")[-1])
    assert shown
    group = get_command(app)
    for line in shown:
        name, *args = shlex.split(line)
        command = group.get_command(None, name)
        assert command is not None, line
        with command.make_context(name, args) as context:
            assert set(context.params) >= {"quiet", "as_json"}


def test_overview_lists_every_verb_and_exit_code(run) -> None:
    ran = run("--help")
    assert ran.code == 0
    for name, verb in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(verb.summary)}$", ran.out, re.MULTILINE)
    codes = re.findall(r"^ +(\d+)  ", ran.out, re.MULTILINE)
    assert codes == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "70",
    ]


def test_no_verb_shows_the_overview_and_is_wrong_usage(run) -> None:
    assert run("")._replace(code=0) == run("--help")
    assert run("").code == 2


def test_version(run) -> None:
    assert run("--version") == (0, f"scaleport {__version__}\n", "")


def test_arguments_are_those_of_the_process_when_none_are_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scaleport", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"scaleport {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_no_python_types_and_no_default_twice(run, verb: str) -> None:
    shown = run(f"{verb} --help").out
    assert not re.search(r"<(str|path|Path|list\[.*)>|\[\[|list\[", shown)
    entries = re.split(r"\n  (?=-)", shown)
    assert all(" ".join(entry.split()).count("[default:") <= 1 for entry in entries)
