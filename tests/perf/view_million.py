"""The sample browser on 1,000,000 samples: seconds to the first page, and to a filter.

A run of 5 cycles of 200,000 samples in full shards, made up, of some 600 bytes an answer. A round
is a server of its own, which is asked for the first page as soon as it listens, and reads the
columns of all samples for it; the seconds from the start of its process are told beside. A filter
counts from the question to the whole page, each for the first time.
Two rounds; of each the slower counts. `python -m tests.perf.view_million [SAMPLES] [FOLDER]`.
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.synthetic_run import write_run
from tests.viewing import viewing

BAR_S = 2.0
CYCLES, EACH = 5, 40
FILTERS = (
    "outcome=compile_error",
    "cycle=3&outcome=passed&sort=-tokens",
    "problem=012&sort=-reward",
    "min_reward=0.5&max_reward=0.7&kept=no",
    "kept=yes&page=900",
)
_COMMAND = ("--outcome", "compile_error", "--sort", "-tokens")


def fetched(address: str) -> float:
    """Seconds to a whole page."""
    began = time.monotonic()
    with urllib.request.urlopen(address) as answer:
        page = answer.read().decode()
    assert page.count("<tr") == 51, f"{address}: not a page of 50 samples"
    return time.monotonic() - began


def one_round(run: Path) -> dict[str, float]:
    """Seconds of each with a new server."""
    began = time.monotonic()
    with viewing(run) as (site, _):
        told = {"first page": fetched(site), "from the start": time.monotonic() - began}
        told |= {asked: fetched(f"{site}?{asked}") for asked in FILTERS}
    began = time.monotonic()
    command = [sys.executable, "-m", "haloforge", "samples", str(run), *_COMMAND]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {**told, "halo-forge samples": time.monotonic() - began}


def main(samples: str = "1000000", folder: str | None = None) -> None:
    """Makes the run, unless it is in `folder` already; prints the entry."""
    with tempfile.TemporaryDirectory() as made:
        run = Path(folder or made) / "run"
        if not run.exists():
            run.mkdir(parents=True)
            write_run(run, CYCLES, int(samples) // CYCLES // EACH, EACH)
        rounds = []
        for _ in range(2):
            rounds.append(one_round(run))
            print(f"  {rounds[-1]}", file=sys.stderr, flush=True)
    seconds = {name: max(each[name] for each in rounds) for name in rounds[0]}
    slowest = max(seconds[name] for name in ("first page", *FILTERS))
    told = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    note = f"{int(samples):,} samples, the slower of two rounds: {told}; the slowest page counts"
    entry = {"ours": slowest, "reference": BAR_S, "ratio": BAR_S / slowest, "unit": "s"}
    print(json.dumps({**entry, "note": note}))


if __name__ == "__main__":
    main(*sys.argv[1:])
