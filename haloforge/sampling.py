"""Streams problems through engines and verifiers, and commits each sample with its verdict."""

import json
from collections.abc import Sequence
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from haloforge.data.chat import render_prompt
from haloforge.data.problems import answer_start
from haloforge.errors import HaloforgeError, InfraError, InputError
from haloforge.model.policy import Policy
from haloforge.rollout.engine import Prompt
from haloforge.rollout.settings import Sampling
from haloforge.rollout.stage import rollout_stage, rows_of
from haloforge.schema import SAMPLE_SCHEMA, Outcome, Problem, sample_id
from haloforge.session import Session
from haloforge.store.shards import ShardWriter, committed_ids
from haloforge.verify.stage import verify_stage


def sample_and_judge(
    session: Session,
    policy: Policy,
    problems: Sequence[Problem],
    samples: int,
    sampling: Sampling,
    run: str,
    cycle: int,
    folder: Path,
    title: str,
) -> None:
    """Draws `samples` completions of each problem from `policy`, judges them, commits to `folder`.

    What is committed there is not drawn again; with nothing left to draw no engine is started.
    Raises InputError for a prompt that leaves no room in `rollout.max_model_len`, InfraError when
    an engine or verifier dies.
    """
    requests = [
        {"sample_id": name, "problem_id": problem.problem_id, "cycle": cycle, "index": index}
        for problem in problems
        for index in range(samples)
        if (name := sample_id(run, cycle, problem.problem_id, index))
    ]
    done = committed_ids(folder)
    if all(request["sample_id"] in done for request in requests):
        session.report.say(f"{title}: all {len(requests)} samples are there already")
        return
    prompts = ray.put(_prompts(session, policy, problems, sampling))
    by_id = ray.put({problem.problem_id: problem for problem in problems})
    pool = session.engines(policy)
    place = session.placement
    tested = any(problem.judge != "compile" for problem in problems)
    good = 0
    with (
        ShardWriter(folder) as shards,
        session.report.stage(title, len(requests), "samples") as stage,
    ):
        if done:
            stage.advance(len(done), "going on")
        # More than one pass only where a proxy died: what it had under way is asked for again.
        while left := [request for request in requests if request["sample_id"] not in done]:
            before = len(done)
            judged = verify_stage(
                rollout_stage(left, pool, prompts, sampling),
                by_id,
                session.settings.verify,
                place.cpus_per_verifier,
                place.verifiers,
            )
            try:
                for row in rows_of(judged):
                    if row["sample_id"] in done:
                        continue
                    done.add(row["sample_id"])
                    verdict = json.loads(row["verdict"])
                    shards.add({name: row[name] for name in SAMPLE_SCHEMA.names}, verdict)
                    good += verdict["outcome"] == Outcome.PASSED if tested else verdict["compiled"]
                    stage.advance(1, f"{good} passed" if tested else f"{good} compile")
            except RayError as error:
                raise _cause(error, title) from error
            if len(done) == before:
                raise InfraError(f"{title} stopped: {len(left)} requests brought no sample")


def _prompts(
    session: Session, policy: Policy, problems: Sequence[Problem], sampling: Sampling
) -> dict[str, Prompt]:
    """Each problem's prompt, by problem_id."""
    tokenizer = session.tokenizer(policy.base)
    system = session.settings.system or policy.system
    room = session.settings.rollout.max_model_len
    prompts = {}
    for problem in problems:
        start = answer_start(problem)
        ids = render_prompt(tokenizer, problem.turns(system), start)
        if len(ids) + sampling.max_tokens > room:
            raise InputError(
                f"problem '{problem.problem_id}': its prompt of {len(ids)} tokens and "
                f"{sampling.max_tokens} to answer exceed rollout.max_model_len={room}; raise it or "
                "lower rollout.max_tokens"
            )
        prompts[problem.problem_id] = Prompt(ids, start)
    return prompts


def _cause(error: BaseException, title: str) -> HaloforgeError:
    """The error of ours that a Ray error carries, or an InfraError that says what failed."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, HaloforgeError):
            return inner
        cause = inner.cause if isinstance(inner, RayTaskError) else None
        inner = cause or inner.__cause__
    last = str(error).strip().splitlines()[-1]
    return InfraError(f"{title} stopped: {last}; the same command goes on from what is committed")
