"""Streams problems through engines and verifiers, and commits each sample with its verdict."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError, RayTaskError

from haloforge.data.chat import encode_prefix, render_prompt
from haloforge.data.problems import answer_start
from haloforge.errors import HaloforgeError, InfraError, InputError
from haloforge.model.policy import Policy
from haloforge.placement import Fleet
from haloforge.rollout.engine import Prompt
from haloforge.rollout.settings import Sampling
from haloforge.rollout.stage import rollout_stage, rows_of
from haloforge.schema import SAMPLE_SCHEMA, Outcome, Problem, sample_id
from haloforge.session import Session
from haloforge.store.shards import ShardWriter, committed_ids, lost_ids, read_judged
from haloforge.verify.settings import VerifySettings
from haloforge.verify.stage import verify_stage
from haloforge.verify.stored import StoredSamples


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
    raw: bool = False,
) -> None:
    """Draws `samples` completions of each problem from `policy`, judges them, commits to `folder`.

    What is committed there is not drawn again, but judged again where that failed; with nothing
    left to draw no engine is started. `raw` judges each completion as it stands too. Raises
    InputError for a prompt that leaves no room in `rollout.max_model_len`, InfraError when an
    engine dies.
    """
    requests = [
        {"sample_id": name, "problem_id": problem.problem_id, "cycle": cycle, "index": index}
        for problem in problems
        for index in range(samples)
        if (name := sample_id(run, cycle, problem.problem_id, index))
    ]
    by_id = ray.put({problem.problem_id: problem for problem in problems})
    verify = session.settings.verify.model_copy(update={"raw": raw} if raw else {})
    judge_again(session, folder, by_id, title, verify)
    done = committed_ids(folder)
    if all(request["sample_id"] in done for request in requests):
        session.report.say(f"{title}: all {len(requests)} samples are there already")
        return
    prompts = ray.put(_prompts(session, policy, problems, sampling))
    fleet = session.fleet  # may be refused, so before engines start
    pool = session.engines(policy)
    tested = any(verify.tests(problem) for problem in problems)
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
            samples = rollout_stage(left, pool, prompts, sampling)
            for row, verdict in judged_rows(verify, fleet, samples, by_id, title):
                if row["sample_id"] in done:
                    continue
                done.add(row["sample_id"])
                shards.add({name: row[name] for name in SAMPLE_SCHEMA.names}, verdict)
                good += verdict["outcome"] == Outcome.PASSED if tested else verdict["compiled"]
                stage.advance(1, f"{good} passed" if tested else f"{good} compile")
            if len(done) == before:
                raise InfraError(f"{title} stopped: {len(left)} requests brought no sample")


def judge_again(
    session: Session,
    folder: Path,
    problems: "ray.ObjectRef[Any]",
    title: str,
    verify: VerifySettings,
) -> None:
    """Judges again what is committed in `folder` with a failure of ours as its verdict, and puts
    the new verdicts in the place of those. What is lost again is so until the next time.

    `problems` refers to a dict of problems by id.
    """
    ids = lost_ids(folder)
    if not ids:
        return
    lost = [row.sample for row in read_judged(folder) if row.sample["sample_id"] in ids]
    fleet = session.fleet
    stored = StoredSamples(lambda: lost, fleet.max_actors)
    with (
        ShardWriter(folder) as shards,
        session.report.stage(f"{title}: lost before", len(lost), "samples") as stage,
    ):
        for row, verdict in judged_rows(verify, fleet, stored.dataset(), problems, title):
            stored.judged()
            shards.add(row, verdict)
            stage.advance()


def judged_rows(
    settings: VerifySettings,
    fleet: Fleet,
    samples: "ray.data.Dataset",
    problems: "ray.ObjectRef[Any]",
    title: str,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each row of `samples` with its verdict, in the order in which `fleet` judges them.

    `problems` refers to a dict of problems by id. Raises InfraError, which names the stage `title`,
    where the stage stops, and the error of ours that stopped it where it was one.
    """
    judged = verify_stage(samples, problems, settings, fleet)
    try:
        for row in rows_of(judged):
            yield row, json.loads(row.pop("verdict"))
    except RayError as error:
        raise _cause(error, title) from error


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
        stop = tuple(problem.stop) or None
        if problem.prefix is None:
            ids = render_prompt(tokenizer, problem.turns(system), start)
        else:
            ids, stop = encode_prefix(tokenizer, problem.prefix), tuple(problem.stop)
        if len(ids) + sampling.max_tokens > room:
            raise InputError(
                f"problem '{problem.problem_id}': its prompt of {len(ids)} tokens and "
                f"{sampling.max_tokens} to answer exceed rollout.max_model_len={room}; raise it or "
                "lower rollout.max_tokens"
            )
        prompts[problem.problem_id] = Prompt(ids, start, stop)
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
