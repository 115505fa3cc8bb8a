"""The prompts of a run beside its samples, which hold no prompt: `problems.parquet`."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.schema import Problem
from haloforge.store.remote import saved

PROBLEMS = "problems.parquet"
PROBLEMS_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("prompt", pa.string()),
        ("language", pa.string()),
        ("difficulty", pa.string()),
        ("judge", pa.string()),
        ("source", pa.string()),
        ("form", pa.string()),
    ]
)
"""`form` is `turns`, or `prefix` for a text that the model continues, by code as it stands."""


def write_problems(folder: Path, problems: Sequence[Problem]) -> None:
    """Writes what is asked to `problems.parquet` in the run folder `folder`, where it is not there
    already: the run's identity says that it would be the same. The file appears whole."""
    path = folder / PROBLEMS
    if path.exists():
        return
    rows = [
        {
            **{name: getattr(problem, name) for name in PROBLEMS_SCHEMA.names[2:6]},
            "problem_id": problem.problem_id,
            "prompt": asked(problem),
            "form": "turns" if problem.prefix is None else "prefix",
        }
        for problem in problems
    ]
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    table = pa.Table.from_pylist(rows, schema=PROBLEMS_SCHEMA)
    pq.write_table(table, partial, compression="zstd")
    with partial.open("rb") as handle:
        os.fsync(handle.fileno())
    partial.replace(path)
    saved(path)


def asked(problem: Problem) -> str:
    """What is put to the model, to read: the text of its only turn, or each turn below its role."""
    if problem.prefix is not None:
        return problem.prefix
    turns = problem.turns()
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}:\n{turn['content']}" for turn in turns)
