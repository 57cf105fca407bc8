"""A command that is stopped half-way leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from scaleport.imaging.files import Image, load_image, save_image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")

# Encodes the output, writes half of it, and dies of the signal that is the first argument.
UPSCALE = """
    import os, sys, time
    from scaleport.cli.main import main
    from scaleport.imaging import writing

    real = writing.encode

    def encode(image, path, *arguments):
        real(image, path, *arguments)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), int(sys.argv[1]))
        # Another thread may take the signal, and would not end one long sleep of this one.
        for _ in range(600):
            time.sleep(0.1)
        path.write_bytes(data)

    writing.encode = encode
    sys.exit(main("upscale photo.png -m photo.bundle -s 2 -o out/photo.png".split()))
"""

# The same for half of the first graph of a bundle.
EXPORT = """
    import os, sys, time
    from scaleport.cli.main import main
    from scaleport.export import exporter

    def write(plan):
        plan.place("onnx/fp32/encode.onnx").write_bytes(b"half")
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(60)

    exporter.writer_of = lambda name: write
    sys.exit(main("export tiny.safetensors -o out/new.bundle --overwrite".split()))
"""

# The signal arrives in a finaliser, whose exceptions Python drops.
SWALLOWED = """
    import os, sys
    from scaleport.cli.main import main
    from scaleport.export import exporter

    class Finalised:
        def __del__(self):
            os.kill(os.getpid(), int(sys.argv[1]))
            for _ in range(10):
                pass

    def write(plan):
        sys.unraisablehook = lambda dropped: None
        Finalised()
        {rest}

    exporter.writer_of = lambda name: write
    sys.exit(main("export tiny.safetensors -o out/new.bundle --overwrite".split()))
"""

# Half of a checkpoint.
IMPORT = """
    import os, sys, time
    from pathlib import Path
    from scaleport.cli.main import main
    from scaleport.models import importers, load_checkpoint
    from scaleport.models.importers import Imported

    def write(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(60)

    def found(source, scales, foreign, settings):
        return Imported(load_checkpoint("tiny.safetensors"), "a network", "a test", ())

    importers.import_file = found
    Path.write_bytes = write
    sys.exit(main("import tiny.safetensors -o out/new.safetensors --overwrite".split()))
"""


def _by_default() -> None:
    """A shell that starts the tests in the background has the first two ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def stopped(code: str, number: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(int(number))],
        preexec_fn=_by_default,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def out(folder: Path, tiny_checkpoint) -> Path:
    """The folder ``out`` with the results of an earlier run."""
    shutil.copy(tiny_checkpoint("liif"), "tiny.safetensors")
    made = folder / "out"
    made.mkdir()
    shutil.copy("photo.png", made / "photo.png")
    shutil.copy("tiny.safetensors", made / "new.safetensors")
    shutil.copytree("photo.bundle", made / "new.bundle")
    return made


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (UPSCALE, signal.SIGINT),
        (UPSCALE, signal.SIGTERM),
        (UPSCALE, signal.SIGHUP),
        (IMPORT, signal.SIGTERM),
        (EXPORT, signal.SIGTERM),
    ],
    ids=["upscale-INT", "upscale-TERM", "upscale-HUP", "import-TERM", "export-TERM"],
)
def test_stopped_command_leaves_the_folder_as_it_was(out: Path, code: str, number: int) -> None:
    before = contents(out)
    ran = stopped(code, number)
    assert (ran.returncode, ran.stdout, ran.stderr) == (128 + number, "", "")
    assert contents(out) == before


@pytest.mark.parametrize("rest", ["plan.step('the next')", "raise ValueError", "pass"])
def test_a_signal_that_a_library_swallowed_still_stops_the_command(out: Path, rest: str) -> None:
    before = contents(out)
    ran = stopped(SWALLOWED.replace("{rest}", rest), signal.SIGTERM)
    assert (ran.returncode, ran.stdout, ran.stderr) == (128 + signal.SIGTERM, "", "")
    if rest != "pass":  # it may have been the last thing to do
        assert contents(out) == before


@pytest.mark.parametrize(
    ("code", "name"), [(UPSCALE, "photo.png"), (EXPORT, "new.bundle")], ids=["upscale", "export"]
)
def test_killed_command_leaves_the_old_output(out: Path, code: str, name: str) -> None:
    before = contents(out)
    assert stopped(code, signal.SIGKILL).returncode == -signal.SIGKILL
    after = contents(out)
    assert {path: after.get(path) for path in before} == before
    # Nothing could clean up; what is left is hidden and has no name that anything reads.
    left = {Path(path).relative_to(out).parts[0] for path in after.keys() - before.keys()}
    assert left
    assert all(part.startswith(".") for part in left), name


def test_ignored_signals_stay_ignored(out: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    late = textwrap.dedent(UPSCALE).replace("range(600)", "range(1)")
    ran = stopped(code + late, signal.SIGTERM)
    assert ran.returncode == 0, ran.stderr
    assert load_image(out / "photo.png").pixels.shape == (28, 40, 3)


def test_full_disk_is_one_line_and_leaves_nothing(out: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8)
    save_image("noise.png", Image(noise))
    before = contents(out)
    code = """
        import resource, sys
        from scaleport.cli.main import main

        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        line = "upscale noise.png -m photo.bundle -s 2 -o out/photo.png --backend onnxruntime"
        sys.exit(main(line.split()))
    """
    ran = stopped(code, 0)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: cannot write out/photo.png: File too large\n"
    assert contents(out) == before


def test_reader_that_closes_the_pipe_ends_the_command_quietly(folder: Path) -> None:
    command = [sys.executable, "-m", "scaleport.cli.main", "inspect", "photo.bundle"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
