"""Selection's memory does not follow the number of samples."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from haloforge.schema import SAMPLE_SCHEMA, VERDICT_SCHEMA
from tests.raft_runs import Row, stored

PROBLEMS = 100
SHARD = 1000
FEW, MANY = 20_000, 100_000
BYTES_A_SAMPLE = 400
"""The numbers that are held, more than once while they are sorted; an answer here has 1,200."""
SELECT = f"""
import resource, sys
from pathlib import Path
from haloforge.raft.select import select
from haloforge.raft.settings import RaftSettings
from haloforge.verify.settings import VerifySettings
from tests.raft_runs import problem

problems = [problem(f"p{{number}}") for number in range({PROBLEMS})]
rules = RaftSettings(keep_top_percent=1.0)
selection = select(Path(sys.argv[1]), 1, problems, rules, VerifySettings(), 0)
print(selection.kept, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write(run: Path, samples: int) -> None:
    folder = run / "cycle_1"
    for name in ("samples", "verdicts", "commits"):
        (folder / name).mkdir(parents=True)
    for shard in range(samples // SHARD):
        rows = [
            stored(Row(f"p{n % PROBLEMS}", n, 1.0, f"int x{n}; // {'and so on ' * 120}"), 1)
            for n in range(shard * SHARD, (shard + 1) * SHARD)
        ]
        for name, schema, half in (("samples", SAMPLE_SCHEMA, 0), ("verdicts", VERDICT_SCHEMA, 1)):
            table = pa.Table.from_pylist([row[half] for row in rows], schema=schema)
            pq.write_table(table, folder / name / f"{shard:06d}.parquet")
        manifest = {"shard": f"{shard:06d}.parquet", "rows": SHARD}
        (folder / "commits" / f"{shard:06d}.json").write_text(json.dumps(manifest))


def peak(run: Path, samples: int) -> int:
    """Bytes at most in memory of a process that selects among so many samples and keeps all."""
    write(run, samples)
    command = [sys.executable, "-c", SELECT, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    kept, found = map(int, done.stdout.split())
    assert kept == samples
    return found


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    few, many = peak(tmp_path / "few", FEW), peak(tmp_path / "many", MANY)
    assert many - few < BYTES_A_SAMPLE * (MANY - FEW)
