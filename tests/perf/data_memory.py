"""The most memory that a million rows of 1 KB take to prepare, validate and split.

Each command in a process of its own, on rows that are generated (see data_validate_scaling.py);
references are not run, for there are none. Memory is the PSS of the process tree, Ray and its
object store included, looked at once a second. `python -m tests.perf.data_memory [ROWS]` prints a
line a command, and exits with 1 where one fails, or takes more than MOST_MIB.
"""

import sys
import tempfile
from pathlib import Path

from tests.perf.data_validate_scaling import ROWS, found_copies_alone, watched, write_rows

MOST_MIB = 6144


def main(rows: int = ROWS) -> None:
    """Runs the three, one on what the other wrote. Raises RuntimeError where one fails, and in the
    end where one took too much."""
    over = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        path = write_rows(place / "rows.jsonl", rows)
        print(f"{rows} rows, {path.stat().st_size / rows:.0f} bytes each", flush=True)
        train = place / "prepared" / "train.jsonl"
        for name, *choices in (
            ("prepare", "--dataset", path, "--output", train),
            ("validate", train, "--no-references", "--report", place / "report.json"),
            ("split", train, "--parts", "train=0.9,test=0.1", "--output", place / "parts"),
        ):
            seconds, peak, code = watched("data", name, *map(str, choices))
            print(f"{name}: exit {code}, {seconds:.0f} s, {peak:.0f} MiB", flush=True)
            if code != (1 if name == "validate" else 0):  # it finds the rows that are copies
                raise RuntimeError(f"{name} ended with exit code {code}")
            if name == "validate":
                found_copies_alone(place / "report.json")
            if peak > MOST_MIB:
                over.append(f"{name} took {peak:.0f} MiB, more than {MOST_MIB}")
    if over:
        raise RuntimeError("; ".join(over))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
