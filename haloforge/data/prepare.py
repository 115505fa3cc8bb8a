"""`data prepare`: a data set as rows that train or problems to solve, with a part held out.

Two passes. The first streams all rows, made into lines, to a scratch file and keeps four digests of
each; by those it is decided what is held out, and the second writes that and the rest. So memory
holds 32 bytes a row, and the scratch file, compressed, is as long as the data.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc

from haloforge.data.jsonl import write_lines
from haloforge.data.keys import Digests, Mask, components, firsts, held_out
from haloforge.data.lines import LINES, Purpose, Writing, write
from haloforge.data.plan import TEST_FILE, Plan
from haloforge.data.problems import starter_problems
from haloforge.data.sidecar import write_sidecar
from haloforge.data.streams import ROWS, drain, read_rows
from haloforge.errors import InputError
from haloforge.report.progress import Report

REPEATS = "its prompt is an earlier row's"
SAME_NAME = "its id is that of another prompt"
IN_TEST = "its prompt or group is in the set's own test split"
HELD_OUT = "held out, for {file}"
OTHER = "other reasons"
_REASONS = 50
_TOLD = 1000
_SCRATCH = ("row", "problem")
_DIGESTS = ("prompt", "group", "name")


@dataclass(frozen=True)
class Prepared:
    """What was written: rows and file of the training part, and of the held-out part if any; and
    how many of the rows `read` were left out of the first, by reason."""

    purpose: Purpose
    output: Path
    rows: int
    test_output: Path | None
    test_rows: int
    read: int
    left_out: dict[str, int]


def prepare(plan: Plan, report: Report) -> Prepared:
    """Writes `plan.output`, and `test.jsonl` beside it, each with its sidecar.

    Ray must be up, but for a bundled set. Held out is the source's own test split where it has one,
    else `test_fraction` of the problems, drawn by `seed`, with all rows of a prompt or of a group
    together. Of problems each prompt is written once. Raises InputError where nothing is left.
    """
    plan.output.parent.mkdir(parents=True, exist_ok=True)
    scratch = plan.output.with_name(f"{plan.output.name}.{os.getpid()}.scratch.tmp")
    try:
        with report.stage("data: reading", plan.source.rows, "rows") as stage:
            pool = _first_pass(plan, scratch, stage.advance)
        trained, tested = _parts(plan, pool, scratch)
        if not trained.any():
            raise InputError(_nothing(plan, pool))
        with report.stage("data: writing", int(trained.sum() + tested.sum()), "rows") as stage:
            return _second_pass(plan, pool, scratch, trained, tested, stage.advance)
    finally:
        scratch.unlink(missing_ok=True)


@dataclass
class _Pool:
    """What the first pass keeps: digests of the rows in the scratch file, those of the source's own
    test split last, and counts."""

    digests: dict[str, list[Digests]] = field(default_factory=lambda: {n: [] for n in _DIGESTS})
    read: int = 0
    kept: int = 0
    tests_read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_of_test: Counter[str] = field(default_factory=Counter)
    seen: Any = field(default_factory=hashlib.sha256)

    @property
    def own_tests(self) -> bool:
        """Whether the source's own test split gave a row that can be held out."""
        return sum(map(len, self.digests["prompt"])) > self.kept

    def column(self, name: str) -> Digests:
        parts = self.digests[name]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _first_pass(plan: Plan, scratch: Path, told: Any) -> _Pool:
    pool = _Pool()
    schema = pa.schema([LINES.field(name) for name in _SCRATCH])
    packed = ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(scratch), "wb") as sink, ipc.new_stream(sink, schema, options=packed) as out:
        for table in _tables(plan, tests=False):
            told(table.num_rows)
            pool.read += table.num_rows
            pool.seen.update(table["read"].to_numpy().tobytes())
            pool.kept += _keep(table, pool, pool.left_out, out)
        if not plan.keep_all:
            for table in _tables(plan, tests=True):
                told(table.num_rows)
                pool.tests_read += table.num_rows
                _keep(table, pool, pool.left_out_of_test, out)
    return pool


def _tables(plan: Plan, tests: bool) -> Iterator[pa.Table]:
    """LINES of the rows to train on, or of the source's own tests."""
    source = plan.source
    purpose: Purpose = "problems" if tests else plan.purpose
    writing = Writing(source, purpose, plan.language, plan.template)
    if source.bundled:
        split = "test" if tests else "train"
        rows = [
            {"place": f"{split}, {problem.problem_id}", "row": problem.model_dump_json()}
            for problem in starter_problems(split)
        ]
        yield write(pa.Table.from_pylist(rows, schema=ROWS), writing)
    elif files := source.test_files if tests else source.files:
        lines = read_rows(files).map_batches(
            write,
            fn_kwargs={"writing": writing},
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
        )
        yield from drain(lines)


def _keep(table: pa.Table, pool: _Pool, left_out: Counter[str], out: Any) -> int:
    """Writes the lines of `table` to `out`, and returns how many."""
    faults = table.filter(pc.is_valid(table["fault"]))
    stopping = faults.filter(faults["stops"])
    begins = not pool.kept and not left_out
    if stopping.num_rows or (begins and 0 < faults.num_rows == table.num_rows):
        raise InputError((stopping if stopping.num_rows else faults)["fault"][0].as_py())
    counts = pc.value_counts(table["left_out"].combine_chunks().drop_null()).to_pylist()
    for each in counts:
        reason = str(each["values"]).partition(", found ")[0]
        known = reason in left_out or len(left_out) < _REASONS
        left_out[reason if known else OTHER] += each["counts"]
    lines = table.filter(pc.is_valid(table["row"]))
    for name in _DIGESTS:
        pool.digests[name].append(lines[name].to_numpy().astype(np.uint64))
    out.write_table(lines.select(_SCRATCH))
    return int(lines.num_rows)


def _parts(plan: Plan, pool: _Pool, scratch: Path) -> tuple[Mask, Mask]:
    """Which rows of the scratch file are written to train on, and which to test by."""
    prompts, groups, names = (pool.column(name) for name in _DIGESTS)
    own = np.arange(len(prompts)) >= pool.kept
    if plan.keep_all:
        tested = np.zeros(len(prompts), np.bool_)
    elif own.any():
        tested = own
        # In any number of steps: a variant of a variant of a test is one of it.
        joined = components(prompts, groups)
        apart = np.isin(joined, joined[own])
        pool.left_out[IN_TEST] += int((apart & ~own).sum())
        own = apart
    else:
        tested = held_out(prompts, groups, plan.test_fraction, plan.seed)
        pool.left_out[HELD_OUT.format(file=TEST_FILE)] += int(tested.sum())
    trained = ~own & ~tested
    if plan.purpose == "problems":
        trained = _distinct(trained, prompts, names, pool.left_out, plan, scratch)
    tested = _distinct(tested, prompts, names, pool.left_out_of_test, plan, scratch)
    for counts in (pool.left_out, pool.left_out_of_test):
        for reason in [reason for reason, count in counts.items() if not count]:
            del counts[reason]
    return trained, tested


def _distinct(
    chosen: Mask,
    prompts: Digests,
    names: Digests,
    left_out: Counter[str],
    plan: Plan,
    scratch: Path,
) -> Mask:
    """Of the rows `chosen`, the first with each prompt and id. An id of two prompts is a fault of
    somebody's own file of problems."""
    places = np.flatnonzero(chosen)
    once = places[firsts(prompts[places])]
    unique = once[firsts(names[once])]
    if len(unique) < len(once) and plan.source.strict and plan.purpose == "problems":
        [line] = _chosen_lines(
            scratch, "row", np.isin(np.arange(len(chosen)), np.setdiff1d(once, unique)[:1])
        )
        row = json.loads(line)
        raise InputError(
            f"{row['source']}: field 'problem_id': '{row['problem_id']}' is that of two prompts"
        )
    left_out[REPEATS] += len(places) - len(once)
    left_out[SAME_NAME] += len(once) - len(unique)
    mask = np.zeros(len(chosen), np.bool_)
    mask[unique] = True
    return mask


def _nothing(plan: Plan, pool: _Pool) -> str:
    where = plan.source.origin
    if not pool.read:
        return f"{where}: the file is empty; expected rows, such as one JSON object a line"
    reasons = "; ".join(f"{count}: {reason}" for reason, count in pool.left_out.most_common(3))
    return f"{where}: none of {pool.read} rows is left to train on ({reasons})"


def _second_pass(
    plan: Plan, pool: _Pool, scratch: Path, trained: Mask, tested: Mask, told: Any
) -> Prepared:
    def written(path: Path, column: str, mask: Mask, part: str, left_out: Counter[str]) -> int:
        count = write_lines(path, _counted(_chosen_lines(scratch, column, mask), told))
        source = plan.source
        write_sidecar(
            path,
            origin=source.origin,
            revision=source.revision or pool.seen.hexdigest(),
            licence=source.licence,
            filters={"part": part, **plan.choices(pool.own_tests)},
            seed=plan.seed,
            read=pool.tests_read if part == "test" and pool.own_tests else pool.read,
            left_out=dict(sorted(left_out.items())),
            rows=count,
            parents=list(source.parents),
        )
        return count

    rows = written(plan.output, "row", trained, "train", pool.left_out)
    tests = 0
    if tested.any():
        tests = written(plan.test_output, "problem", tested, "test", pool.left_out_of_test)
    left_out = dict(pool.left_out.most_common())
    test_output = plan.test_output if tests else None
    return Prepared(plan.purpose, plan.output, rows, test_output, tests, pool.read, left_out)


def _chosen_lines(scratch: Path, column: str, mask: Mask) -> Iterator[str]:
    """`column` of the scratch file's rows in `mask`; of a row that has one line only, that."""
    start = 0
    with pa.OSFile(str(scratch), "rb") as source, ipc.open_stream(source) as batches:
        for batch in batches:
            part = pa.array(mask[start : start + batch.num_rows])
            start += batch.num_rows
            yield from pc.coalesce(batch[column], batch["row"]).filter(part).to_pylist()


def _counted(lines: Iterable[str], told: Any) -> Iterator[str]:
    number = 0
    for number, line in enumerate(lines, 1):
        yield line
        if number % _TOLD == 0:
            told(_TOLD)
    told(number % _TOLD)
