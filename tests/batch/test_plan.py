"""Which files a run reads and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scaleport.batch.journal import Entry, Journal
from scaleport.batch.plan import plan
from scaleport.errors import OutputError, UsageError


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.TIF", "notes.txt", ".hidden.png", "sub/a.png", "sub/deep/c.jpg"):
        path = Path("scans") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    Path("scans/.git").mkdir()
    Path("scans/.git/d.png").write_bytes(b"x")
    return Path("scans")


def jobs(*inputs, output=None, **options) -> dict[str, str]:
    found = plan([Path(i) for i in inputs], output, "_x2", **options)
    assert not found.failures
    return {job.source.as_posix(): job.target.as_posix() for job in found.jobs}


def test_a_folder_stands_for_the_images_in_it(scans):
    assert jobs("scans") == {
        "scans/a.png": "scans/a_x2.png",
        "scans/b.TIF": "scans/b_x2.png",
    }


def test_folders_within_are_taken_on_request_and_kept_apart(scans):
    assert jobs("scans", output="out", recursive=True, kind="webp") == {
        "scans/a.png": "out/a_x2.webp",
        "scans/b.TIF": "out/b_x2.webp",
        "scans/sub/a.png": "out/sub/a_x2.webp",
        "scans/sub/deep/c.jpg": "out/sub/deep/c_x2.webp",
    }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("scans/*.png", {"scans/a.png": "out/a_x2.png"}),
        ("scans/*", {"scans/a.png": "out/a_x2.png", "scans/b.TIF": "out/b_x2.png"}),
        ("scans/[bc].*", {"scans/b.TIF": "out/b_x2.png"}),
        ("scans/*.txt", {"scans/notes.txt": "out/notes_x2.png"}),
        (
            "scans/**/a.png",
            {"scans/a.png": "out/a_x2.png", "scans/sub/a.png": "out/sub/a_x2.png"},
        ),
        ("sca*/sub/a.png", {"scans/sub/a.png": "out/scans/sub/a_x2.png"}),
    ],
)
def test_patterns_are_expanded(scans, pattern, expected):
    if pattern == "scans/*":
        for path in (scans / "sub").rglob("*.*"):
            path.rename(path.with_suffix(".other"))
    found = plan([Path(pattern)], "out", "_x2")
    assert {j.source.as_posix(): j.target.as_posix() for j in found.jobs} == expected


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(scans):
    (scans / "[ab].png").write_bytes(b"x")
    assert list(jobs("scans/[ab].png")) == ["scans/[ab].png"]


def test_nothing_found_is_said_of_each_input(scans):
    Path("empty").mkdir()
    found = plan(["scans/*.gif", "empty", "scans/a.png"], "out", "_x2")
    assert [job.source.name for job in found.jobs] == ["a.png"]
    assert [str(error).split(" (")[0] for _, error in found.failures] == [
        "no image matches scans/*.gif",
        "empty holds no images",
    ]


def test_outputs_within_the_input_folder_are_not_inputs(scans):
    (scans / "out/sub").mkdir(parents=True)
    (scans / "out/sub/a_x2.png").write_bytes(b"x")
    assert not any("out" in name for name in jobs("scans", output="scans/out", recursive=True))
    # The same folder may hold both; then only what this run makes is left out.
    (scans / "sub/a_x2.png").write_bytes(b"x")
    found = jobs("scans", output="scans", recursive=True)
    assert "scans/sub/a.png" in found
    assert "scans/sub/a_x2.png" not in found


def test_an_image_that_is_named_twice_is_made_once(scans):
    assert list(jobs("scans/a.png", "scans", "scans/*.png")) == ["scans/a.png", "scans/b.TIF"]


@pytest.mark.parametrize("tag", ["_x3", "_x2.5x3", "_1920x1080", "_fit800x600", "_w1920"])
def test_a_folder_does_not_eat_what_earlier_runs_left_in_it(scans, tag):
    for name in ("a_x2.png", "a_x2x3.5.webp", "a_640x480.png", "a_x4_x3.png", "b_TIF_x2.png"):
        (scans / name).write_bytes(b"x")
    # Pictures of the user's own whose names end so; there is no "cat", and "a_x" is no tag.
    (scans / "cat_x2.png").write_bytes(b"x")
    (scans / "a_x.png").write_bytes(b"x")
    found = plan(["scans"], None, tag)
    assert [job.source.name for job in found.jobs] == ["a.png", "a_x.png", "b.TIF", "cat_x2.png"]
    left_out = {path.name for path, _ in found.left_out}
    assert left_out == {"a_x2.png", "a_x2x3.5.webp", "a_640x480.png", "a_x4_x3.png", "b_TIF_x2.png"}
    assert all("name the file itself" in reason for _, reason in found.left_out)
    again = plan(["scans/a_x2.png", "scans/*.png"], None, tag)
    assert "a_x2.png" in [job.source.name for job in again.jobs]


def test_outputs_in_a_folder_of_their_own_are_known_by_its_journal(scans):
    (scans / "large").mkdir()
    for name in ("a_x2.png", "cat_x2.png"):
        (scans / "large" / name).write_bytes(b"x")
    assert "scans/large/a_x2.png" in jobs("scans", recursive=True, output="out")
    entry = Entry(
        output="a_x2.png",
        bytes=1,
        sha256="0" * 64,
        input_sha256="0" * 64,
        settings="0" * 64,
        input_size=(1, 1),
        output_size=(2, 2),
    )
    Journal(scans / "large").add(entry)
    found = jobs("scans", recursive=True, output="out")
    assert "scans/large/a_x2.png" not in found
    assert "scans/large/cat_x2.png" in found
    # A folder of outputs alone is what its user means to upscale.
    assert list(jobs("scans/large", output="out")) == [
        "scans/large/a_x2.png",
        "scans/large/cat_x2.png",
    ]


def test_what_this_run_makes_is_no_input_of_it_even_if_it_is_named(scans):
    (scans / "a_x2.png").write_bytes(b"x")
    found = plan(["scans/a.png", scans.resolve() / "a_x2.png"], None, "_x2")
    assert [job.source.name for job in found.jobs] == ["a.png"]
    ((path, reason),) = found.left_out
    assert (path.name, reason) == ("a_x2.png", f"this run makes it from {Path('scans/a.png')}")


def test_inputs_of_one_stem_keep_their_suffix_in_the_output(scans):
    (scans / "a.jpg").write_bytes(b"x")
    assert jobs("scans") == {
        "scans/a.jpg": "scans/a_jpg_x2.png",
        "scans/a.png": "scans/a_png_x2.png",
        "scans/b.TIF": "scans/b_x2.png",
    }
    found = jobs("scans/a.jpg", "scans/sub/a.png", "scans/b.TIF", output="out", kind="webp")
    assert list(found.values()) == ["out/a_jpg_x2.webp", "out/a_png_x2.webp", "out/b_x2.webp"]
    # Once more, beside what that made: names do not grow.
    for name in ("a_jpg_x2.png", "a_png_x2.png"):
        (scans / name).write_bytes(b"x")
    assert set(jobs("scans")) == {"scans/a.jpg", "scans/a.png", "scans/b.TIF"}


def test_folders_that_are_missing_are_allowed(scans):
    assert jobs("scans/a.png", output="new/sub/o.webp") == {"scans/a.png": "new/sub/o.webp"}
    assert jobs("scans/a.png", output="new/sub/") == {"scans/a.png": "new/sub/a_x2.png"}
    Path("clip.mp4").write_bytes(b"x")
    assert jobs("clip.mp4", output="new/sub/big.mkv") == {"clip.mp4": "new/sub/big.mkv"}
    assert not Path("new").exists()


def test_a_file_that_is_not_there_is_a_failure_with_the_name_that_was_meant(scans):
    found = plan(["scans/a.pgn", "scans/a.png", "https://a.b/c.png"], None, "_x2")
    assert [job.source.name for job in found.jobs] == ["a.png"]
    missing, address = (str(error) for _, error in found.failures)
    assert missing.endswith("there is no such file (did you mean scans/a.png?)")
    assert address.startswith("https://a.b/c.png is an address")


def test_refusals(scans):
    with pytest.raises(UsageError, match="several images"):
        plan(["scans"], "one.png", "_x2")
    with pytest.raises(OutputError, match="is a file, not a directory"):
        plan(["scans"], "scans/a.png/deeper/", "_x2")
    with pytest.raises(OutputError, match=r"did you mean \.png\?"):
        plan(["scans/a.png"], "o.pgn", "_x2")
    Path("clip.mp4").write_bytes(b"x")
    with pytest.raises(OutputError, match=r"a video cannot become .*\.mp4"):
        plan(["clip.mp4"], "o.png", "_x2")
    with pytest.raises(UsageError, match="did you mean webp"):
        plan(["scans"], None, "_x2", kind="wepb")
    clash = plan(["scans/a.png", "scans/sub/a.png"], "out", "_x2")
    assert "already the output of" in str(clash.failures[0][1])
