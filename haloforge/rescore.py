"""Scoring stored samples again, with no model: by another verifier, or of another trainer."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from haloforge.benchmark.problems import read_source
from haloforge.config import Settings
from haloforge.data.problems import prompts_digest
from haloforge.data.samples import Survey, read_samples, survey
from haloforge.errors import InfraError, InputError
from haloforge.placement import Fleet
from haloforge.preflight import check_problems
from haloforge.sampling import PASS_ROWS, judged_rows
from haloforge.schema import VERDICT_SCHEMA, Outcome, Problem
from haloforge.session import Session
from haloforge.store.lock import release
from haloforge.store.run import Identity, differences, open_run, set_aside
from haloforge.store.shards import (
    ShardWriter,
    committed_ids,
    in_order,
    is_lost,
    lost_ids,
    read_judged,
)
from haloforge.verify.stored import StoredSamples

IDENTITY = b"haloforge"
"""The key in the Parquet file's metadata that holds what its verdicts were made from."""
_GROUP_ROWS = 4096


@dataclass(frozen=True)
class Rescoring:
    """Stored samples that were read once and found good, and where their verdicts go."""

    source: Path
    problems: dict[str, Problem] | None
    output: Path
    work: Path
    """Where verdicts are committed until all are there."""
    found: Survey
    tested: bool
    """Whether more than compiling is judged of any of them."""
    identity: Identity
    complete: bool
    """Whether `output` holds the verdicts, none of them lost to a failure of ours."""


def plan(
    settings: Settings, source: Path, problems: str | None, output: Path, fresh: bool = False
) -> Rescoring:
    """Checks all that can be wrong with `source` and `output` before Ray starts.

    `problems` is a source of problems, as for `read_source`. `fresh` sets an old output aside.
    Raises InputError naming file, row and field, or how an existing output differs.
    """
    if output.suffix != ".parquet":
        raise InputError(f"{output}: verdicts are written as Parquet; name a .parquet file")
    known = None
    if problems is not None:
        known = {p.problem_id: p for p in read_source(problems, settings)}
    found = survey(source, known)
    looked_at = [*(known or {}).values(), *found.kinds.values()]
    check_problems(settings, looked_at)
    tested = any(settings.verify.tests(problem) for problem in looked_at)
    identity: Identity = {
        "what": "verify",
        "samples": found.digest,
        "problems": prompts_digest((known or {}).values()),
        "verify": settings.verify.judging(),
    }
    identity = json.loads(json.dumps(identity))  # as it will be read back
    work = output.with_name(f"{output.name}.work")
    if fresh:
        for old in (output, work):
            if old.exists():
                set_aside(old)
    complete = False
    if output.exists():
        changed = differences(_identity(output), identity)
        if changed:
            raise InputError(
                f"{output} holds verdicts of other inputs or settings ({'; '.join(changed)}); undo "
                "the change, name another --output, or set the old one aside with --fresh"
            )
        complete = not scores(output).lost
        if complete:
            shutil.rmtree(work, ignore_errors=True)  # it was stopped just before that
    return Rescoring(source, known, output, work, found, tested, identity, complete)


def rescore(session: Session, rescoring: Rescoring) -> None:
    """Judges what is not judged yet, or was lost to a failure of ours, and writes the verdicts to
    `output`, in the samples' order.

    Raises InfraError when the stage stops; what was judged is kept.
    """
    fleet = session.fleet  # may be refused: before anything is written
    open_run(rescoring.work, rescoring.identity)
    if rescoring.output.exists():
        _take_back(rescoring)
    done = committed_ids(rescoring.work) - lost_ids(rescoring.work)
    if len(done) < rescoring.found.rows:
        _judge(session, fleet, rescoring, done)
    _assemble(rescoring)


def _take_back(rescoring: Rescoring) -> None:
    """Commits the verdicts in `output` to the work folder again, to go on from there."""
    there = committed_ids(rescoring.work)
    with ShardWriter(rescoring.work) as shards:
        for index, verdict in enumerate(_verdicts(rescoring.output)):
            if verdict["sample_id"] not in there:
                shards.add(_placed({**verdict, "index": index}), verdict)


def _judge(session: Session, fleet: Fleet, rescoring: Rescoring, done: set[str]) -> None:
    found, known = rescoring.found, rescoring.problems
    # A problem of each kind that rows hold stands for the others where toolchains are looked for.
    kinds = {problem.problem_id: problem for problem in found.kinds.values()}
    problems = ray.put({**(known or {}), **kinds})
    ids = None if known is None else frozenset(known)
    tested, good = rescoring.tested, 0
    with (
        ShardWriter(rescoring.work) as shards,
        session.report.stage("verify", found.rows, "samples") as stage,
    ):
        if done:
            stage.already(len(done))
        while len(done) < found.rows:
            before = len(done)
            left = partial(_left, rescoring.source.resolve(), ids, frozenset(done), PASS_ROWS)
            samples = StoredSamples(left, fleet.max_actors)
            judged = judged_rows(
                session.settings.verify, fleet, samples.dataset(), problems, "verify"
            )
            for row, verdict in judged:
                samples.judged()
                if row["sample_id"] in done:
                    continue
                done.add(row["sample_id"])
                shards.add(_placed(row), verdict)
                if verdict["outcome"] == Outcome.INFRA_ERROR:
                    session.report.failed(verdict["diagnostics"], row["sample_id"])
                good += verdict["outcome"] == Outcome.PASSED if tested else verdict["compiled"]
                stage.advance(1, f"{good} passed" if tested else f"{good} compile")
            if len(done) == before:
                raise InfraError(f"{found.rows - before} samples brought no verdict")


def _left(
    path: Path, ids: frozenset[str] | None, done: frozenset[str], limit: int
) -> Iterator[dict[str, Any]]:
    return islice((row for row in read_samples(path, ids) if row["sample_id"] not in done), limit)


def _placed(row: dict[str, Any]) -> dict[str, Any]:
    """The row of SAMPLE_SCHEMA that remembers a sample's place; its text is in the input."""
    identity = {name: row[name] for name in ("sample_id", "problem_id", "index")}
    unknown = {"finish_reason": "", "num_tokens": 0, "logprob_sum": None, "policy": ""}
    return {**identity, "cycle": 0, "completion": "", "sampling": "", **unknown}


def _assemble(rescoring: Rescoring) -> None:
    """Writes all verdicts to `output` in one go and takes the work folder away."""
    output = rescoring.output
    schema = VERDICT_SCHEMA.with_metadata({IDENTITY: json.dumps(rescoring.identity)})
    whole = rescoring.work / "whole.parquet"
    rows = (row.verdict for row in in_order(read_judged(rescoring.work)))
    with pq.ParquetWriter(whole, schema, compression="zstd") as writer:
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    with whole.open("rb") as handle:
        os.fsync(handle.fileno())
    whole.replace(output)
    release(rescoring.work)  # a network file system keeps a file that is open
    shutil.rmtree(rescoring.work)


def _identity(path: Path) -> Identity:
    try:
        found = pq.read_schema(path).metadata or {}
        identity: Identity = json.loads(found[IDENTITY])
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise InputError(f"{path} exists and holds no verdicts of `halo-forge verify`") from None
    return identity


@dataclass
class Scores:
    """What verdicts came to. Failures of ours are in `outcomes` and in nothing else."""

    outcomes: Counter[str] = field(default_factory=Counter)
    rewards: Counter[str] = field(default_factory=Counter)
    """Sum of rewards by outcome."""
    toolchains: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    """Samples of which a failure of ours kept something from being judged."""

    def add(self, verdict: dict[str, Any]) -> None:
        """Counts one verdict."""
        self.outcomes[verdict["outcome"]] += 1
        self.tiers[verdict["sandbox_tier"]] += 1
        self.lost += is_lost(verdict)
        if verdict["outcome"] != Outcome.INFRA_ERROR:
            self.rewards[verdict["outcome"]] += verdict["reward"]
            self.toolchains[verdict["toolchain"]] += bool(verdict["toolchain"])


def scores(output: Path) -> Scores:
    """What the verdicts in a file come to."""
    found = Scores()
    for verdict in _verdicts(output):
        found.add(verdict)
    return found


def _verdicts(output: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(output) as file:
        for batch in file.iter_batches(_GROUP_ROWS):
            yield from batch.to_pylist()
