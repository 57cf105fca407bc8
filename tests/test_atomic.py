import os
import sys
import threading

import pytest

from scaleport.atomic import atomic_path, write_bytes, write_new, write_text
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


def test_a_new_file_replaces_nothing(tmp_path):
    write_new(tmp_path / "a", b"x")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"y")
    assert (tmp_path / "a").read_bytes() == b"x"
