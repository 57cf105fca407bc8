import os
import sys
import threading

import pytest

from scaleport.atomic import (
    Pending,
    atomic_folder,
    atomic_path,
    replace_folder,
    write_bytes,
    write_text,
)
from scaleport.errors import OutputError


def test_a_file_appears_complete_and_alone(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target, sync=True) as new:
        new.write_text("new")
        assert target.read_text() == "old"
        assert new.parent == tmp_path
        assert new.name.startswith(".")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_half_written_goes_and_the_old_file_stays(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as new:
        new.write_text("ha")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_errors_of_the_system_name_the_target(tmp_path):
    missing = tmp_path / "attic" / "a.txt"
    with pytest.raises(OutputError, match=r"cannot write .*attic.a\.txt: No such file"):
        write_text(missing, "x")
    with pytest.raises(OutputError, match=r"cannot write .*: Is a directory"):
        write_bytes(tmp_path, b"x")
    with pytest.raises(OutputError, match="No space"), atomic_path(tmp_path / "b") as new:
        new.write_text("ha")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a", "äöü")
    assert (tmp_path / "a").read_bytes() == "äöü".encode()


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
class TestNotRegular:
    def test_a_link_stays_and_its_file_is_replaced(self, tmp_path):
        (tmp_path / "folder").mkdir()
        real, link = tmp_path / "folder" / "real", tmp_path / "link"
        real.write_text("old")
        link.symlink_to(real)
        write_text(link, "new")
        assert link.is_symlink()
        assert real.read_text() == "new"

    def test_a_pipe_is_written_to(self, tmp_path):
        pipe, got = tmp_path / "pipe", []
        os.mkfifo(pipe)
        reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
        reader.start()
        write_text(pipe, "text")
        reader.join(10)
        assert got == ["text"]
        assert pipe.is_fifo()

    def test_a_new_file_is_as_readable_as_any_other(self, tmp_path):
        write_text(tmp_path / "a", "x")
        (tmp_path / "b").write_text("x")
        assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_in_the_making_replaces_nothing_but_its_target(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    new = Pending(tmp_path / "a")
    new.write(b"x")
    with pytest.raises(FileExistsError):
        new.write(b"y")
    assert new.path.read_bytes() == b"x"
    assert (tmp_path / "a").read_bytes() == b"old"
    new.commit()
    new.discard()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"x")]


def test_a_file_that_is_given_up_leaves_nothing(tmp_path):
    new = Pending(tmp_path / "a", "raw")
    new.write(b"x")
    assert new.path.name.endswith(".raw.tmp")
    new.discard()
    new.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("follow", [True, False])
def test_whether_a_link_is_followed(tmp_path, follow):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    new = Pending(tmp_path / "link", follow=follow)
    new.write(b"new")
    new.commit()
    assert (tmp_path / "link").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink() is follow
    assert (tmp_path / "real").read_bytes() == (b"new" if follow else b"old")


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "made"
    for _ in range(2):  # an empty one is replaced
        with pytest.raises(ZeroDivisionError), atomic_folder(target) as new:
            (new / "half").write_text("x")
            raise ZeroDivisionError
        assert list(tmp_path.rglob("*")) == ([target] if target.exists() else [])
        target.mkdir(exist_ok=True)
    with atomic_folder(target) as new:
        (new / "whole").write_text("x")
        assert list(target.iterdir()) == []
    assert [path.name for path in target.iterdir()] == ["whole"]
    with pytest.raises(OutputError, match="cannot write"), atomic_folder(target) as new:
        (new / "other").write_text("x")
    assert [path.name for path in target.iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_that_cannot_take_the_place_leaves_the_former_one(tmp_path):
    for name in ("new", "place"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "place", tmp_path / "old")
    assert {p.name: [q.name for q in p.iterdir()] for p in tmp_path.iterdir()} == {
        "place": ["new"],
        "old": ["place"],
    }
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "gone", tmp_path / "place", tmp_path / "aside")
    assert [p.name for p in (tmp_path / "place").iterdir()] == ["new"]
