"""Peak memory of one upscale, measured in a process of its own.

Run as ``python -m scaleport.benchmark.memory`` with a JSON object as its argument; prints one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec

from scaleport.errors import BackendError

_MIB = 1 << 20


class Task(msgspec.Struct, frozen=True):
    """What the process of its own is told to do, see :func:`peak_of`."""

    bundle: str
    backend: str
    precision: str
    threads: int
    size: tuple[int, int]
    scale: float
    inference_precision: str = ""


def peak_bytes() -> int | None:
    """Most memory that this process has held at once; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: its figure begins with that of the process that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def peak_of(
    bundle: Path,
    backend: str,
    precision: str,
    threads: int,
    size: tuple[int, int],
    scale: float,
    inference_precision: str = "",
) -> tuple[float | None, float | None]:
    """Peak memory of loading a bundle and upscaling one picture, in MiB.

    Args:
        bundle: the bundle.
        backend: name of the backend.
        precision: precision of its graphs.
        threads: processor threads.
        size: LR height and width.
        scale: of both axes.
        inference_precision: what is computed in instead; empty computes as the graphs say.

    Returns:
        The peak, and what of it was there before the bundle was loaded (the interpreter and the
        backend's library); None where the system does not say.

    Raises:
        BackendError: if the process fails; the message is its last line.
    """
    task = Task(str(bundle), backend, precision, threads, size, scale, inference_precision)
    command = [sys.executable, "-m", "scaleport.benchmark.memory"]
    command.append(msgspec.json.encode(task).decode())
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"measuring the memory of {backend} failed: {said}")
    found = json.loads(ran.stdout.splitlines()[-1])
    return found["peak_mib"], found["before_mib"]


def _measure(task: Task) -> dict[str, float | None]:
    import numpy as np

    from scaleport.runtimes.registry import require
    from scaleport.runtimes.upscaler import load

    pixels = np.random.default_rng(0).integers(0, 256, (*task.size, 3), np.uint8)
    require(task.backend)
    before = peak_bytes()
    upscaler = load(
        task.bundle,
        task.backend,
        task.precision,
        task.threads,
        inference_precision=task.inference_precision,
    )
    upscaler(pixels, scale=task.scale)
    peak = peak_bytes()
    return {
        "peak_mib": None if peak is None else peak / _MIB,
        "before_mib": None if before is None else before / _MIB,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(msgspec.json.decode(sys.argv[1], type=Task))) + "\n")
