"""Seconds in which `halo-forge report` writes the page of a RAFT run of 5 cycles of 20,000 samples.

The start of the process is in it. `ours` is the fastest of three, `reference` the bar of 5 s.
`python -m tests.perf.report_time [SAMPLES]` takes other numbers of samples a cycle.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.report_runs import MIX, interval, write_activity, write_raft
from tests.results import passing

CYCLES, SAMPLES, STEPS = 5, 20_000, 300
BAR_S = 5.0


def write_run(run: Path, samples: int) -> Path:
    """A run with all that the page shows: samples, losses, scores, activity of some hours."""
    write_raft(run, CYCLES, samples, steps=STEPS, mix={**MIX, "infra_error": 1})
    for cycle in range(1, CYCLES + 1):
        folder = run / f"cycle_{cycle}" / "eval"
        folder.mkdir()
        result = passing([n % 6 for n in range(cycle, cycle + 160)], 5)
        (folder / "results.json").write_text(result.model_dump_json())
    rows = [
        interval(1e9 + 10 * n, cycle=n // 700 + 1, phase="train" if n % 700 > 500 else "sample")
        for n in range(700 * CYCLES)
    ]
    write_activity(run, rows)
    return run


def main(samples: int = SAMPLES) -> None:
    """Writes the run, then its page three times."""
    took = []
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), samples)
        for _ in range(3):
            began = time.monotonic()
            command = [sys.executable, "-m", "haloforge", "report", str(run)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took.append(time.monotonic() - began)
            print(f"  {took[-1]:.2f} s", file=sys.stderr, flush=True)
        size = (run / "report.html").stat().st_size
    note = (
        f"{CYCLES} cycles of {samples:,} samples, {STEPS} steps each, {700 * CYCLES:,} rows of "
        f"activity; a page of {size / 1024:.0f} KiB; {os.cpu_count()} cores; all runs: "
        + ", ".join(f"{seconds:.2f}" for seconds in took)
    )
    entry = {"ours": min(took), "reference": BAR_S, "ratio": BAR_S / min(took), "unit": "s"}
    print(json.dumps({**entry, "note": note}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
