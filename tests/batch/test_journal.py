"""What was finished is known after a crash, and only that."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from scaleport.atomic import remove_leftovers, temporary_stem
from scaleport.batch.journal import JOURNAL_NAME, Entry, Journal

INPUT, SETTINGS = "a" * 64, "b" * 64


def entry(target: Path, **changes) -> Entry:
    data = target.read_bytes()
    fields = {
        "output": target.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "input_sha256": INPUT,
        "settings": SETTINGS,
        "input_size": (2, 3),
        "output_size": (4, 6),
    }
    return Entry(**{**fields, **changes})


def made(folder: Path, name: str = "a.png", data: bytes = b"pixels") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def test_a_finished_output_is_found_by_another_process(tmp_path):
    target = made(tmp_path)
    Journal(tmp_path).add(entry(target))
    assert Journal(tmp_path).find(target, INPUT, SETTINGS) == entry(target)


def test_whatever_changed_is_made_again(tmp_path):
    target = made(tmp_path)
    Journal(tmp_path).add(entry(target))
    journal = Journal(tmp_path)
    assert journal.find(target, "c" * 64, SETTINGS) is None
    assert journal.find(target, INPUT, "c" * 64) is None
    assert journal.find(tmp_path / "b.png", INPUT, SETTINGS) is None
    target.write_bytes(b"pixelz")
    assert journal.find(target, INPUT, SETTINGS) is None
    target.unlink()
    assert journal.find(target, INPUT, SETTINGS) is None


def test_torn_and_strange_lines_cost_no_other(tmp_path):
    first, second, third = (made(tmp_path, f"{n}.png") for n in "abc")
    Journal(tmp_path).add(entry(first))
    path = tmp_path / JOURNAL_NAME
    with path.open("ab") as file:
        file.write(b'{"output": 3}\n\xff\xfe\nnull\n')
    Journal(tmp_path).add(entry(second))
    path.write_bytes(path.read_bytes()[:-5])
    Journal(tmp_path).add(entry(third))
    journal = Journal(tmp_path)
    found = [journal.find(t, INPUT, SETTINGS) is not None for t in (first, second, third)]
    assert found == [True, False, True]


def test_a_journal_does_not_grow_for_ever(tmp_path):
    target = made(tmp_path)
    journal = Journal(tmp_path)
    for _ in range(150):
        journal.add(entry(target))
    assert Journal(tmp_path).find(target, INPUT, SETTINGS)
    assert len((tmp_path / JOURNAL_NAME).read_bytes().splitlines()) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", JOURNAL_NAME}


def test_leftovers_of_dead_processes_are_removed_and_no_other_file(tmp_path):
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path\n"
            "from scaleport.atomic import temporary_stem\n"
            "stem = temporary_stem(Path(sys.argv[1]) / 'a.png')\n"
            "for end in ('.tmp', '.raw.tmp'): Path(f'{stem}{end}').write_text('half')",
            str(tmp_path),
        ],
        check=True,
        capture_output=True,
    )
    assert child.returncode == 0
    assert len(list(tmp_path.iterdir())) == 2
    mine = Path(f"{temporary_stem(tmp_path / 'a.png')}.tmp")
    other = tmp_path / f".scaleport-00000000-{os.getpid()}-{'0' * 16}.tmp"
    old = tmp_path / f".scaleport-00000000-7-{'0' * 16}.tmp"
    kept = [mine, other, tmp_path / ".scaleport-notes.tmp", tmp_path / "a.png"]
    for path in (*kept, old):
        path.write_text("x")
    os.utime(old, (0, 0))
    assert remove_leftovers(tmp_path) == 3
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert remove_leftovers(tmp_path / "gone") == 0
