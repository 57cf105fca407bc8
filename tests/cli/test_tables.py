"""Tables of the command line: plain text in which nothing is cut."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaleport.cli.output import Output, table

ROWS = [("name", "size", "for"), ("a", "1.5 kB", "x"), ("longer-name", "12 kB", "some words")]


def test_columns_are_aligned() -> None:
    assert table(ROWS) == [
        "  name         size    for",
        "  a            1.5 kB  x",
        "  longer-name  12 kB   some words",
    ]
    assert table([]) == []


def test_numbers_are_aligned_to_the_right() -> None:
    assert table(ROWS, "", numbers=slice(1, 2)) == [
        "name           size  for",
        "a            1.5 kB  x",
        "longer-name   12 kB  some words",
    ]
    assert table([("a", "1"), ("b", "234")], "", numbers=slice(1, None)) == ["a    1", "b  234"]


def test_only_the_last_column_is_folded_and_only_between_words() -> None:
    text = "words that are too many for one line of the terminal"
    assert table([("why", text)], "", 30) == [
        "why  words that are too many",
        "     for one line of the",
        "     terminal",
    ]
    name = "/a/folder/of/a/name/that/is/wider/than/the/terminal.png"
    assert table([("why", name)], "", 30) == [f"why  {name}"]
    # Where the first column leaves too little room, the terminal folds the lines itself.
    assert table([(name, text)], "", 60) == [f"{name}  {text}"]


def test_wide_characters_take_two_columns() -> None:
    assert table([("写真.png", "2"), ("a.png", "3")], "") == ["写真.png  2", "a.png     3"]


def test_markup_and_control_characters_are_shown_as_they_are() -> None:
    assert table([("[bold]a[/bold] :cat:", "\x1b[2J\x07")], "") == [
        r"[bold]a[/bold] :cat:  \x1b[2J\x07"
    ]


CELLS = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=30)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=5))
def test_no_cell_is_cut(rows: list[tuple[str, str, str]]) -> None:
    lines = table(rows, width=30)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert line.split() == [cell for cell in row if cell]


def test_a_table_in_a_pipe_has_no_width(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    text = "word " * 100
    Output().say_table([("a", text.strip())])
    assert capsys.readouterr().out == f"  a  {text.rstrip()}\n"
    Output(json=True).say_table(ROWS)
    Output(quiet=True).say_table(ROWS)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("modules", ["scaleport.cli.main", "scaleport.cli.upscale"])
def test_rich_is_imported_for_a_table_only(modules: str) -> None:
    code = f"import sys, {modules}; assert 'rich.table' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
