"""Which files a run reads and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_refusals(scans):
    with pytest.raises(UsageError, match="several images"):
        plan(["scans"], "one.png", "_x2")
    with pytest.raises(OutputError, match="there is no directory"):
        plan(["scans"], "gone/deeper/", "_x2")
    clash = plan(["scans/a.png", "scans/sub/a.png"], "out", "_x2")
    assert "already the output of" in str(clash.failures[0][1])
