"""The most memory that a million rows of 1 KB take to prepare, validate and split.

Each command in a process of its own, on rows that are generated (see data_validate_scaling.py);
references are not run, for there are none. Memory is the PSS of the process tree, Ray and its
object store included, looked at once a second. `python -m tests.perf.data_memory [ROWS]` prints a
line a command.
"""

import sys
import tempfile
from pathlib import Path

from tests.perf.data_validate_scaling import ROWS, watched, write_rows


def main(rows: int = ROWS) -> None:
    """Runs the three, one on what the other wrote."""
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


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
