"""Proof of the judge before a run trusts it: every problem's own solutions, through the fleet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from haloforge.benchmark.problems import read_source
from haloforge.config import Settings
from haloforge.data.jsonl import write_jsonl
from haloforge.errors import InputError
from haloforge.preflight import check_problems
from haloforge.sampling import judged_rows
from haloforge.schema import Outcome, Problem, Verdict
from haloforge.session import Session
from haloforge.store.run import set_aside, write_atomic
from haloforge.verify.references import reference_samples, reference_settings
from haloforge.verify.stored import StoredSamples


@dataclass(frozen=True)
class Proof:
    """How a problem's own solution in one language was judged."""

    problem: Problem
    language: str
    verdict: Verdict
    holds: bool
    """Whether it was found right, or compiles where no more is judged."""

    @property
    def lost(self) -> bool:
        """Whether a failure of ours kept it from being judged."""
        return self.verdict.outcome is Outcome.INFRA_ERROR


def plan_proof(
    settings: Settings, source: str, output: Path | None, fresh: bool = False
) -> tuple[Settings, list[Problem]]:
    """The settings to judge by and the problems of `source` that have solutions.

    `fresh` sets an old output aside. Raises InputError for what is wrong with them, before Ray.
    """
    problems = [p for p in read_source(source, settings) if p.reference]
    if not problems:
        raise InputError(f"{source}: no problem has a 'reference'")
    settings = settings.model_copy(update={"verify": reference_settings(settings.verify)})
    check_problems(settings, reference_samples(problems)[0].values())
    if output is not None and output.exists():
        if not fresh:
            raise InputError(f"{output} exists; name another, or set it aside with --fresh")
        set_aside(output)
    return settings, problems


def prove(session: Session, problems: Sequence[Problem]) -> list[Proof]:
    """Judges every solution of `problems`, and returns them in their order."""
    variants, samples = reference_samples(problems)
    fleet = session.fleet
    stored = StoredSamples(lambda: samples, fleet.max_actors)
    verdicts = {}
    with session.report.stage("references", len(samples), "solutions") as stage:
        for row, verdict in judged_rows(
            session.settings.verify, fleet, stored.dataset(), ray.put(variants), "references"
        ):
            stored.judged()
            if row["sample_id"] not in verdicts:
                verdicts[row["sample_id"]] = Verdict(**verdict)
                stage.advance()
    tests = session.settings.verify.tests
    proofs = []
    for key, problem in variants.items():
        found = verdicts[key]
        right = found.outcome is Outcome.PASSED if tests(problem) else found.compiled
        proofs.append(Proof(problem, str(problem.language), found, right))
    return proofs


def write_failed(path: Path, failed: Sequence[Proof]) -> None:
    """The failed problems' ids, one a line; with what failed of each in a `.jsonl` file. Both are
    what `raft.exclude` and `benchmark.exclude` read."""
    if path.suffix != ".jsonl":
        ids = dict.fromkeys(proof.problem.problem_id for proof in failed)
        write_atomic(path, "".join(f"{problem_id}\n" for problem_id in ids))
        return
    facts = {"outcome", "diagnostics"}
    write_jsonl(
        path,
        (
            {"problem_id": proof.problem.problem_id, "language": proof.language}
            | proof.verdict.model_dump(mode="json", include=facts)
            for proof in failed
        ),
    )
