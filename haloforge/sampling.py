"""Streams problems through engines and verifiers, and commits each sample with its verdict."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
import ray.data
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from haloforge.data.chat import encode_prefix, render_prompt
from haloforge.data.problems import UNTESTED, answer_start
from haloforge.errors import HaloforgeError, InfraError, InputError
from haloforge.groups import judged_in
from haloforge.model.policy import Policy
from haloforge.observe.activity import ENGINE
from haloforge.observe.observer import Observer
from haloforge.placement import Fleet
from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.requests import Done, Requests
from haloforge.rollout.settings import Sampling
from haloforge.rollout.stage import rollout_stage
from haloforge.schema import Outcome, Problem
from haloforge.session import Session
from haloforge.store.layout import ENGINE_RESTARTS, EVAL
from haloforge.store.run import write_atomic
from haloforge.store.shards import (
    ShardWriter,
    committed_keys,
    compact,
    lost_ids,
    read_judged,
    set_torn_aside,
)
from haloforge.verify.settings import VerifySettings
from haloforge.verify.stage import verify_stage
from haloforge.verify.stored import StoredSamples
from haloforge.watch import NodeWatch

_LOOK_S = 30.0
PASS_ROWS = 100_000
"""Requests of one execution of a data set at most: Ray Data keeps some kilobytes about each block
until it ends, and to start another takes some seconds."""
_PASSES_IN_VAIN = 3
_DIED = (WorkerCrashedError, ObjectLostError, NodeDiedError, OutOfMemoryError)

JudgedRows = Iterator[tuple[dict[str, Any], dict[str, Any]]]
"""Rows of samples with their verdicts."""


class ProcessDiedError(InfraError):
    """A process of Ray Data's died, or a node: the stage has ended, nothing committed is lost."""


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
    left to draw no engine is started. Commits that a disk has spoilt are set aside and made anew.
    `raw` judges each completion as it stands too. Raises InputError for a prompt that leaves no
    room in `rollout.max_model_len`, or another system prompt than the policy was trained with;
    ResourceError where no node may verify, InfraError when no engine is left.
    """
    by_id = ray.put({problem.problem_id: problem for problem in problems})
    verify = session.settings.verify.model_copy(update={"raw": raw} if raw else {})
    tested = any(verify.tests(problem) for problem in problems)
    if not tested:
        session.report.say(f"{title}: {UNTESTED}")
    for torn in set_torn_aside(folder):
        session.report.say(f"{title}: {torn} cannot be read; its samples are made anew")
    judge_again(session, folder, by_id, title, verify)
    requests = Requests(run, cycle, [problem.problem_id for problem in problems], samples)
    done = Done(requests)
    for problem_id, index in committed_keys(folder):
        done.add(problem_id, index)
    if done.count == len(requests):
        session.report.say(f"{title}: all {len(requests)} samples are there already")
        session.report.reused()
        compact(folder)  # which a kill may have kept from its end
        return
    prompts = _prompts(session, policy, problems, sampling)
    asked = ray.put(replace(requests, prompts=prompts))
    _ = session.fleet  # may be refused, so before engines start
    pool = session.engines(policy)
    good = 0
    with (
        ShardWriter(folder) as shards,
        _EngineWatch(session, pool, folder, title) as engines,
        session.report.stage(title, len(requests), "samples") as stage,
    ):
        if done.count:
            stage.already(done.count)

        def drawn_and_judged() -> JudgedRows:
            session.observer.verifiers(session.fleet.min_actors)
            drawn = rollout_stage(done.left(PASS_ROWS), pool, asked, sampling)
            return judged_rows(verify, session.fleet, drawn, by_id, title, session.observer)

        passes = in_passes(session, title, lambda: len(requests) - done.count, drawn_and_judged)
        for row, verdict in passes:
            if not done.add(row["problem_id"], row["index"]):
                continue
            shards.add(row, verdict)
            session.observer.judged(row, verdict)
            if verdict["outcome"] == Outcome.INFRA_ERROR:
                session.report.failed(verdict["diagnostics"], row["sample_id"])
            good += verdict["outcome"] == Outcome.PASSED if tested else verdict["compiled"]
            stage.advance(1, f"{good} passed" if tested else f"{good} compile")
            engines.look()
            stage.note = engines.told
    compact(folder)


def engine_restarts(folder: Path) -> int:
    """How many engines died and were started anew for the samples in `folder` and in its folder
    `eval`: while those were made, or since the stage before. A count that cannot be read is 0."""
    return sum(map(_noted_restarts, (folder, folder / EVAL)))


def _noted_restarts(folder: Path) -> int:
    try:
        return int((folder / ENGINE_RESTARTS).read_text())
    except (OSError, ValueError):
        return 0


class _EngineWatch:
    """Tells and keeps how often engines are started anew, from the end of the stage before on, and
    has the pool note when the first token by its policy came."""

    def __init__(self, session: Session, pool: EnginePool, folder: Path, title: str) -> None:
        self._report, self._observer, self._pool = session.report, session.observer, pool
        self._folder, self._title = folder, title
        self._next = 0.0
        self.told = ""

    def __enter__(self) -> Self:
        self._look()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._look()

    def look(self) -> None:
        """Looks now and then only: it takes a call for each engine."""
        if time.monotonic() >= self._next:
            self._look()
            self._next = time.monotonic() + _LOOK_S

    def _look(self) -> None:
        self._pool.note_first_token()
        restarts = self._pool.new_restarts()
        if restarts:
            self._report.say(
                f"{self._title}: {restarts} engines died and were started anew; what they had "
                "under way was sent again"
            )
            self._observer.restarted(ENGINE, restarts)
            total = _noted_restarts(self._folder) + restarts
            self.told = f"engines restarted: {total}"
            self._report.failed(f"{self._title}: {restarts} engines died")
            write_atomic(self._folder / ENGINE_RESTARTS, str(total))


def judge_again(
    session: Session,
    folder: Path,
    problems: "ray.ObjectRef[Any]",
    title: str,
    verify: VerifySettings,
) -> None:
    """Judges again what is committed in `folder` with a failure of ours as its verdict, and puts
    the new verdicts in the place of those. What is lost again is so until the next time.

    `problems` refers to a dict of problems by id. Raises ResourceError where no node may verify,
    InfraError where the stage stops.
    """
    left = lost_ids(folder)
    if not left:
        return
    with (
        ShardWriter(folder) as shards,
        session.report.stage(f"{title}: lost before", len(left), "samples") as stage,
    ):

        def read_and_judged() -> JudgedRows:
            fleet = session.fleet
            session.observer.verifiers(fleet.min_actors)
            rows = partial(_stored, folder.resolve(), frozenset(islice(left, PASS_ROWS)))
            stored = StoredSamples(rows, fleet.max_actors)
            observer = session.observer
            for judged in judged_rows(verify, fleet, stored.dataset(), problems, title, observer):
                stored.judged()
                yield judged

        for row, verdict in in_passes(session, title, lambda: len(left), read_and_judged):
            if row["sample_id"] in left:
                left.remove(row["sample_id"])
                shards.add(row, verdict)
                session.observer.judged(row, verdict)
                if verdict["outcome"] == Outcome.INFRA_ERROR:
                    session.report.failed(verdict["diagnostics"], row["sample_id"])
                stage.advance()


def _stored(folder: Path, ids: frozenset[str]) -> Iterator[dict[str, Any]]:
    """The committed samples of these `ids`."""
    return (row.sample for row in read_judged(folder) if row.sample["sample_id"] in ids)


def in_passes(
    session: Session, title: str, left: Callable[[], int], judged: Callable[[], JudgedRows]
) -> JudgedRows:
    """What `judged` brings, again and again until nothing is `left`: there is more than one pass
    where there are very many rows, and where a process of Ray Data's or a node died. So `judged`
    takes the fleet that the nodes which are there by then have room for.

    Raises InfraError where passes bring nothing.
    """
    in_vain = 0
    while before := left():
        try:
            yield from judged()
        except ProcessDiedError:
            session.report.say(
                f"{title}: a process or a node died; what it had under way is asked for again"
            )
        in_vain = in_vain + 1 if left() == before else 0
        if in_vain == _PASSES_IN_VAIN:
            raise InfraError(f"{title} stopped: {before} samples are left, and none comes")


def judged_rows(
    settings: VerifySettings,
    fleet: Fleet,
    samples: "ray.data.Dataset",
    problems: "ray.ObjectRef[Any]",
    title: str,
    observer: Observer | None = None,
) -> JudgedRows:
    """Each row of `samples` with its verdict, in the order in which `fleet` judges them.

    `problems` refers to a dict of problems by id; `observer` is told what verifiers do. Raises
    InfraError, which names the stage `title`,
    where the stage stops (ProcessDiedError where a process or a node died), and the error of ours
    that stopped it where it was one.
    """
    judged = verify_stage(samples, problems, settings, fleet)
    with NodeWatch() as watch:
        try:
            for row in judged_in(judged, observer.verified if observer else None):
                watch.came()
                yield row
        except RayError as error:
            if not watch.ended:
                raise _cause(error, title) from error
        except Exception:  # as Ray Data's own threads may raise while they are ended
            if not watch.ended:
                raise
    if watch.ended:
        raise ProcessDiedError(
            f"{title} stopped: a node is gone, and nothing came any more; the same command goes on "
            "from what is committed"
        )


def _prompts(
    session: Session, policy: Policy, problems: Sequence[Problem], sampling: Sampling
) -> list[Prompt]:
    """The prompts of `problems`, in their order."""
    tokenizer = session.tokenizer(policy.base)
    system = policy.system_prompt(session.settings.system)
    room = session.settings.rollout.max_model_len
    prompts = []
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
        prompts.append(Prompt(ids, start, stop))
    return prompts


def _cause(error: BaseException, title: str) -> HaloforgeError:
    """The error of ours that a Ray error carries, or an InfraError that says what failed."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, HaloforgeError):
            return inner
        if isinstance(inner, _DIED):
            return ProcessDiedError(
                f"{title} stopped: a process died ({type(inner).__name__}); the same command goes "
                "on from what is committed"
            )
        cause = inner.cause if isinstance(inner, RayTaskError) else None
        inner = cause or inner.__cause__
    last = str(error).strip().splitlines()[-1]
    return InfraError(f"{title} stopped: {last}; the same command goes on from what is committed")
