"""Pass rates of the problems, kept over cycles and runs, and the curriculum that follows them.

`<run>/pass_rates.jsonl` holds a row for each problem and cycle in which it was judged. Problems
that the policy always solves, or never, teach it nothing while that is so
([Yu et al. 2025](https://arxiv.org/abs/2503.14476) leave them out in each step).
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from haloforge.data.jsonl import first_fault, read_jsonl, write_jsonl
from haloforge.data.problems import prompts_digest
from haloforge.errors import HaloforgeError, InfraError, InputError
from haloforge.raft.settings import RaftSettings
from haloforge.schema import Problem
from haloforge.store.remote import saved
from haloforge.store.storage import local_path

PASS_RATES = "pass_rates.jsonl"


@dataclass(frozen=True, slots=True, config={"extra": "forbid"})
class PassRate:
    """Of the `samples` of a problem that were judged in a cycle, how many solved it.

    Cycles of earlier runs count down from 0. `policy` is the digest of the one that sampled.
    """

    problem_id: str
    problem_digest: str
    cycle: int
    samples: Annotated[int, Field(ge=1)]
    solved: Annotated[int, Field(ge=0)]
    policy: str

    def __post_init__(self) -> None:
        if self.solved > self.samples:
            raise ValueError("'solved' must be at most 'samples'")

    @property
    def rate(self) -> float:
        """The share that solved it."""
        return self.solved / self.samples


_PASS_RATE = TypeAdapter(PassRate)


class Plan(NamedTuple):
    """The problems that a cycle samples, and how many problems are in which state."""

    problems: list[Problem]
    measured: int
    unmeasured: int
    resting_too_easy: int
    resting_too_hard: int


def plan(
    problems: Sequence[Problem],
    latest: Mapping[str, PassRate],
    cycle: int,
    settings: RaftSettings,
) -> Plan:
    """The problems to sample in `cycle`; all of them without a curriculum.

    `latest` are the newest pass rates from before, by problem_id. A problem whose rate lies outside
    the bounds rests for `curriculum_rest` cycles after it was measured. Raises HaloforgeError where
    all rest.
    """
    measured = sum(problem.problem_id in latest for problem in problems)
    low, high = settings.curriculum_bounds
    chosen, easy, hard = [], 0, 0
    for problem in problems:
        rate = latest.get(problem.problem_id)
        rests = (
            settings.curriculum == "historical"
            and rate is not None
            and cycle <= rate.cycle + settings.curriculum_rest
        )
        if rate is not None and rests and rate.rate > high:
            easy += 1
        elif rate is not None and rests and rate.rate < low:
            hard += 1
        else:
            chosen.append(problem)
    if not chosen:
        raise HaloforgeError(
            f"raft cycle {cycle}: the curriculum leaves no problem to sample: {easy} rest as too "
            f"easy, {hard} as too hard; name another --output and widen raft.curriculum_bounds, "
            "lower raft.curriculum_rest, or bring other problems"
        )
    return Plan(chosen, measured, len(problems) - measured, easy, hard)


class History(NamedTuple):
    """Pass rates of an earlier run, the last cycle of which is 0. Rows of `changed` problems, which
    are not what they were then, and of `unknown` ones, not in this run, are not among `rates`.
    `digest` is that of the file."""

    rates: list[PassRate]
    changed: int
    unknown: int
    digest: str


def read_history(source: str, problems: Sequence[Problem], run: Path | None = None) -> History:
    """The pass rates in a file, or in the run folder that holds it, for the run in `run`.

    Raises InputError naming file, line and field of what is wrong, and where it is this run's own.
    """
    path = local_path(source)
    path = path / PASS_RATES if path.is_dir() else path
    if run and path.resolve() == (run / PASS_RATES).resolve():
        raise InputError(f"raft.history {source}: this run's own; it goes on from those by itself")
    last = max(rate.cycle for rate in _read(path))
    digests = {problem.problem_id: prompts_digest([problem]) for problem in problems}
    rates: list[PassRate] = []
    changed, unknown = set(), set()
    for rate in _read(path):
        if rate.problem_id not in digests:
            unknown.add(rate.problem_id)
        elif digests[rate.problem_id] != rate.problem_digest:
            changed.add(rate.problem_id)
        else:
            rates.append(replace(rate, cycle=rate.cycle - last))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return History(rates, len(changed), len(unknown), digest)


def latest_rates(run: Path, before: int) -> dict[str, PassRate]:
    """The newest pass rate of each problem, by problem_id, that the run recorded of a cycle before
    `before`: a cycle that is taken up again has the plan that it had."""
    latest: dict[str, PassRate] = {}
    for rate in _recorded(run):
        known = latest.get(rate.problem_id)
        if rate.cycle < before and (known is None or known.cycle <= rate.cycle):
            latest[rate.problem_id] = rate
    return latest


def record_rates(
    run: Path,
    cycle: int,
    problems: Sequence[Problem],
    judged: Iterable[int],
    solved: Iterable[int],
    policy: str,
) -> None:
    """Puts the pass rates of a cycle into the run's file, in the place of what that held of it.

    `judged` and `solved` count samples by the problems' places; a problem without any has no row.
    """
    rates = (
        PassRate(
            problem_id=problem.problem_id,
            problem_digest=prompts_digest([problem]),
            cycle=cycle,
            samples=int(samples),
            solved=int(right),
            policy=policy,
        )
        for problem, samples, right in zip(problems, judged, solved, strict=True)
        if samples
    )
    _rewrite(run, lambda rate: rate.cycle != cycle, rates)


def record_history(run: Path, history: History) -> None:
    """Puts an earlier run's pass rates into the run's file, so that they outlive that run."""
    _rewrite(run, lambda rate: rate.cycle > 0, history.rates)


def set_torn_aside(run: Path) -> int:
    """Leaves what a disk has spoilt out of the run's file, of which a copy stays under a name that
    ends in `.torn`, and returns how many lines that were. What they held was never measured then.

    Raises InfraError where the file cannot be read at all.
    """
    path = run / PASS_RATES
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise InfraError(f"{path}: cannot be read ({error})") from error
    rates = [rate for line in lines if (rate := _whole(line))]
    if len(rates) < len(lines):
        saved(Path(shutil.copy(path, path.with_name(f"{path.name}.torn"))))
        write_jsonl(path, map(asdict, rates))
        saved(path)
    return len(lines) - len(rates)


def _whole(line: bytes) -> PassRate | None:
    try:
        return _PASS_RATE.validate_json(line)
    except ValidationError:
        return None


def _rewrite(run: Path, kept: Callable[[PassRate], bool], rates: Iterable[PassRate]) -> None:
    write_jsonl(run / PASS_RATES, map(asdict, chain(filter(kept, _recorded(run)), rates)))
    saved(run / PASS_RATES)


def _recorded(run: Path) -> Iterator[PassRate]:
    path = run / PASS_RATES
    return _read(path) if path.is_file() and path.stat().st_size else iter(())


def _read(path: Path) -> Iterator[PassRate]:
    for number, row in read_jsonl(path):
        try:
            yield _PASS_RATE.validate_python(row)
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: {first_fault(error)}") from None
