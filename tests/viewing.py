"""Runs for the sample browser, and its server as a user starts it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.raft.select import select
from haloforge.raft.settings import RaftSettings
from haloforge.store.problems_table import write_problems
from haloforge.store.shards import ShardWriter
from haloforge.verify.settings import VerifySettings
from tests.raft_runs import Row, problem, stored, write_cycle

PROBLEMS = ("count/vowels", "count/words", "sum/all", "sum/odd")
REWARDS = (0.0, 0.7, 1.0, 0.5)
CYCLES = (1, 2)
SAMPLES = 20


def rows_of(cycle: int) -> list[Row]:
    """Those of a cycle: 20 of each problem, of which the later cycle solves more."""
    rows = []
    for place, name in enumerate(PROBLEMS):
        for number in range(SAMPLES):
            reward = REWARDS[(number + place * cycle) % len(REWARDS)]
            if cycle == 2 and number % 5 == 0:
                reward = 1.0
            rows.append(Row(name, number, reward, tokens=100 + number + 50 * cycle))
    return rows


def raft_run(run: Path) -> Path:
    """A RAFT run of two cycles with an evaluation before the first and one after it."""
    problems = [problem(name) for name in PROBLEMS]
    run.mkdir(exist_ok=True)
    write_problems(run, problems)
    for cycle in CYCLES:
        write_cycle(run, cycle, rows_of(cycle), commit=30)
        settings = RaftSettings(keep_top_percent=0.5, train_on="all")
        select(run, cycle, problems, settings, VerifySettings(), 0)
        final = run / f"cycle_{cycle}_final"
        final.mkdir()
        told = {"base_public_id": "a/base", "base_digest": "b4se", "parent": f"policy {cycle}"}
        (final / "haloforge.json").write_text(json.dumps(told))
    for folder in (run / "start_eval", run / "cycle_1" / "eval"):
        with ShardWriter(folder) as shards:
            for number in range(3):
                shards.add(*stored(Row("held/out", number, 1.0 if number else 0.0), 0))
        write_problems(folder, [problem("held/out")])
    return run


def spoil(path: Path, column: str, values: Sequence[bytes]) -> None:
    """Puts `values`, which need be no valid UTF-8, in the place of a column of strings."""
    table = pq.read_table(path)
    made = pa.array(values, pa.binary())
    strings = pa.Array.from_buffers(pa.string(), len(made), made.buffers())
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, strings), path, write_page_checksum=True)


@contextmanager
def viewing(run: Path, *options: str, **environment: str) -> Iterator[tuple[str, Any]]:
    """The address that `halo-forge view RUN` prints, and its process, which is ended after it."""
    command = [sys.executable, "-m", "haloforge", "view", str(run), "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            yield told.partition("Samples: ")[2].strip(), process
        finally:
            process.terminate()
            process.wait(30)
