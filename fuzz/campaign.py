"""Run every target for a time, one after the other, and add up what libFuzzer counted.

Usage: ``python fuzz/campaign.py OUT --minutes 15 [target ...]``. ``OUT/TARGET`` holds the corpus
as it grew, findings and the log; ``OUT/figures.json`` the sums. It runs at the lowest priority, and
next to other work gets little done in its minutes: ``--nice 0`` gives it a processor's share.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = tuple(sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py")))


def fuzz(name: str, out: Path, seconds: float) -> dict[str, float]:
    """One target; libFuzzer ends at a hang, a crash or too much memory, and is started again."""
    home = out / name
    for part in ("corpus", "findings", "stopped"):
        (home / part).mkdir(parents=True, exist_ok=True)
    executions, restarts, start, busy = 0, 0, time.monotonic(), _processor_time()
    with (home / "log.txt").open("ab") as log:
        while (left := seconds - (time.monotonic() - start)) > 5:
            command = [sys.executable, str(HERE / f"fuzz_{name}.py")]
            command += [f"-max_total_time={int(left)}", "-rss_limit_mb=2048", "-timeout=60"]
            command += ["-print_final_stats=1", "-max_len=65536"]
            command += [f"-artifact_prefix={home / 'stopped'}/", str(home / "corpus")]
            environment = {**os.environ, "SCALEPORT_FUZZ_FINDINGS": str(home / "findings")}
            offset = log.seek(0, os.SEEK_END)
            subprocess.run(command, stdout=log, stderr=log, check=False, env=environment)
            text = (home / "log.txt").read_bytes()[offset:].decode(errors="replace")
            counted = re.findall(r"number_of_executed_units: (\d+)", text)
            executions += int(counted[-1]) if counted else 0
            restarts += 1
    return {
        "executions": executions,
        "seconds": round(time.monotonic() - start),
        "processor_seconds": round(_processor_time() - busy),
        "places_with_findings": len(list((home / "findings").glob("*.txt"))),
        "stopped": len([p for p in (home / "stopped").iterdir() if "slow" not in p.name]),
        "starts": restarts,
    }


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0, help="for each target")
    parser.add_argument("--nice", type=int, default=19, help="priority, 0 for that of other work")
    parser.add_argument("targets", nargs="*", default=TARGETS)
    given = parser.parse_intermixed_args()
    os.nice(given.nice)
    seeds = given.out / "seeds"
    if not seeds.exists():
        subprocess.run([sys.executable, str(HERE / "make_corpus.py"), str(seeds)], check=True)
    figures = given.out / "figures.json"
    done = json.loads(figures.read_text()) if figures.exists() else []
    for name in given.targets:
        corpus = given.out / name / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for seed in sorted((seeds / name).iterdir()):
            (corpus / f"seed-{seed.name}").write_bytes(seed.read_bytes())
        done.append({"target": name, **fuzz(name, given.out, given.minutes * 60)})
        figures.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
