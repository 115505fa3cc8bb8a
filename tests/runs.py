"""Problems for runs of the whole program, and what such a run has committed."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq


def printing_problems(path: Path, count: int) -> Path:
    """Problems `p0`, `p1` and so on, each of which asks for its number; written to `path`."""
    rows = [
        {"problem_id": f"p{number}", "prompt": f"Print {number}.", "language": "python"}
        | {"tests": [{"stdin": "", "stdout": f"{number}\n"}]}
        for number in range(count)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def sample_ids(run: Path) -> "Counter[str]":
    """How often each sample is in a committed shard below `run`."""
    ids: Counter[str] = Counter()
    for manifest in run.rglob("commits/*.json"):
        shard = json.loads(manifest.read_text())["shard"]
        table = pq.read_table(manifest.parent.parent / "samples" / shard)
        ids.update(table["sample_id"].to_pylist())
    return ids
