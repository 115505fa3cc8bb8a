"""Rows/s of `data validate` on a million rows over those on a hundred thousand, of 1 KB each.

Each side is the command in a process of its own, on rows that are generated, all different but for
a few exact and near copies; references are not run, for there are none. Counted is the whole
command, Ray's start included. The note has the most memory in all: PSS, which counts what processes
share once, summed over the command and all that descends from it, Ray and its object store
included. `python -m tests.perf.data_validate_scaling [ROWS [FEWER]]`.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from haloforge.data.sft import to_chatml

ROWS, FEWER = 1_000_000, 100_000
EVERY_S = 1.0
WORDS = [f"{begin}{end}" for begin in ("re", "in", "pro", "de", "con") for end in range(400)]
CODE = "```python\nn = int(input())\nfor i in range({0}, n):\n    print(i * {1}, '{2}')\n```"
COPIES = 100  # of so many rows one is a copy of the row before, and one nearly


class Side(NamedTuple):
    """What the command did on one file."""

    rate: float
    peak_mib: float


def main(rows: int = ROWS, fewer: int = FEWER) -> None:
    """Prints the entry."""
    many, few = measured(rows), measured(fewer)
    note = (
        f"the whole command on {rows} and on {fewer} generated rows of 1 KB, references not run; "
        f"at most {many.peak_mib:.0f} and {few.peak_mib:.0f} MiB in all (PSS of the process tree, "
        "object store included)"
    )
    entry = {"ours": many.rate, "reference": few.rate, "ratio": many.rate / few.rate}
    print(json.dumps({**entry, "unit": "rows/s", "note": note}))


def measured(rows: int) -> Side:
    """Rates and memory of the command on so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder) / "rows.jsonl", rows)
        report_to = ("--no-references", "--report", f"{folder}/report.json")
        seconds, peak, _ = watched("data", "validate", str(path), *report_to)
        if (read := found_copies_alone(Path(folder) / "report.json")) != rows:
            raise RuntimeError(f"{read} of {rows} rows were read")
    print(f"  {rows} rows: {seconds:.0f} s, {peak:.0f} MiB", file=sys.stderr, flush=True)
    return Side(rows / seconds, peak)


def found_copies_alone(path: Path) -> int:
    """How many rows were read, by the report in `path`. Raises RuntimeError where others than those
    that are copies were found wrong, or none."""
    report = json.loads(path.read_text())
    if not 0 < report["wrong"] == report["faults"]["duplicate"]["rows"]:
        raise RuntimeError(f"unexpected findings: {report['faults']}")
    return int(report["rows"])


def write_rows(path: Path, count: int) -> Path:
    """So many conversations of 1 KB."""
    draw = random.Random(0)
    asked = answer = ""
    with path.open("w") as file:
        for number in range(count):
            if number % COPIES == 1:
                asked += " please"
            elif number % COPIES != 2:
                asked = " ".join(draw.choices(WORDS, k=140))
                said = " ".join(draw.choices(WORDS, k=9))
                answer = CODE.format(draw.randrange(10**6), number, said)
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"text": to_chatml(turns)}) + "\n")
    return path


def watched(*command: str) -> tuple[float, float, int]:
    """Seconds, MiB at most (see `held`) and exit code of a command of haloforge."""
    began, peak = time.monotonic(), 0.0
    running = subprocess.Popen(
        [sys.executable, "-m", "haloforge", *command], stdout=subprocess.DEVNULL
    )
    while running.poll() is None:
        time.sleep(EVERY_S)
        peak = max(peak, held(running.pid))
    return time.monotonic() - began, peak, running.returncode


def held(pid: int) -> float:
    """MiB of a process and all that descend from it, what they share counted once."""
    total = 0
    try:
        head = psutil.Process(pid)
        family = [head, *head.children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
