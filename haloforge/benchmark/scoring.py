"""From judged samples to measures: counts a problem, estimates over problems, breakdowns."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from haloforge.benchmark.passk import Estimate, estimate
from haloforge.benchmark.results import (
    SCHEMA_VERSION,
    Breakdown,
    MeasureSettings,
    ProblemCounts,
    Result,
    problem_values,
)
from haloforge.config import Settings
from haloforge.data.problems import prompts_digest
from haloforge.errors import InfraError
from haloforge.model.policy import Policy
from haloforge.rollout.settings import Sampling, sampling_of
from haloforge.schema import TEST_CODE_JUDGES, Outcome, Problem, digest
from haloforge.store.shards import Judged, is_lost
from haloforge.verify.extract import answer_of
from haloforge.verify.toolchains import select
from haloforge.verify.trivial import is_trivial

SHARES = ("no_code", "cut_off", "timed_out", "trivial")
_LIMITS = {
    *("compile_wall_s", "compile_memory_mb", "run_wall_s", "run_cpu_s", "run_memory_mb"),
    *("processes", "output_kb", "file_mb", "files"),
}
_BREAKDOWNS: dict[Breakdown, Callable[[ProblemCounts], Sequence[str]]] = {
    "difficulty": lambda counts: [counts.difficulty] if counts.difficulty else [],
    "tag": lambda counts: counts.tags,
    "language": lambda counts: [counts.language] if counts.language else [],
}


def benchmark_sampling(settings: Settings) -> Sampling:
    """How the benchmark samples: greedy where it draws one sample a problem."""
    rollout = settings.rollout
    if settings.benchmark.temperature is not None:
        rollout = rollout.model_copy(update={"temperature": settings.benchmark.temperature})
    return sampling_of(rollout, greedy=settings.benchmark.samples == 1)


def score(
    policy: Policy,
    problems: Sequence[Problem],
    judged: Sequence[Judged],
    settings: Settings,
    excluded: int = 0,
    suite: dict[str, Any] | None = None,
) -> Result:
    """The measures of judged samples. Problems without tests count for compiling alone.
    `excluded` and `suite` are told in the result's settings.

    Raises InfraError where no sample could be judged.
    """
    chosen = settings.benchmark
    verdicts = [row.verdict for row in judged]
    counts = count_samples(problems, judged, settings)
    if not any(problem.n for problem in counts.values()):
        raise InfraError("no sample could be judged; see the outcomes' diagnostics in verdicts/")
    lost = sum(map(is_lost, verdicts))
    return Result(
        schema_version=SCHEMA_VERSION,
        model=policy.name,
        policy=policy.digest,
        base=policy.base.public_id,
        base_digest=policy.base.digest,
        problems=len(problems),
        problems_digest=prompts_digest(problems),
        samples=chosen.samples,
        settings=MeasureSettings(
            prompts=chosen.prompts,
            suite=suite,
            excluded=excluded,
            k=list(chosen.k),
            seed=settings.seed,
            resamples=chosen.resamples,
            **benchmark_sampling(settings).model_dump(),
        ),
        measures=estimates(counts, chosen.k, chosen.resamples, settings.seed),
        breakdowns=breakdowns(counts, chosen.k, chosen.resamples, settings.seed),
        shares=_shares(problems, judged, settings),
        outcomes=_counted(verdicts, "outcome"),
        infra_errors=lost,
        complete=not lost,
        samples_digest=digest(
            *sorted(f"{row.sample['sample_id']} {row.sample['completion']}" for row in judged)
        ),
        toolchains=_counted(verdicts, "toolchain"),
        sandbox_tiers=_counted(verdicts, "sandbox_tier"),
        limits=settings.verify.model_dump(include=_LIMITS),
        config=settings.model_dump(mode="json"),
        per_problem=counts,
    )


def count_samples(
    problems: Sequence[Problem], judged: Sequence[Judged], settings: Settings
) -> dict[str, ProblemCounts]:
    """What the samples of each problem came to, by problem_id."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in judged:
        verdict, count = row.verdict, found[row.verdict["problem_id"]]
        if verdict["raw_outcome"] not in (None, Outcome.INFRA_ERROR):
            count["raw_n"] += 1
            count["raw_passed"] += verdict["raw_outcome"] == Outcome.PASSED
        count["infra"] += is_lost(verdict)
        if verdict["outcome"] != Outcome.INFRA_ERROR:
            count["n"] += 1
            count["compiled"] += verdict["compiled"]
            count["ran"] += verdict["ran"]
            count["passed"] += verdict["outcome"] == Outcome.PASSED
    numbers = ("n", "compiled", "ran", "passed", "raw_n", "raw_passed", "infra")
    return {
        problem.problem_id: ProblemCounts(
            group=problem.group or problem.problem_id,
            difficulty=problem.difficulty,
            tags=problem.tags,
            language=problem.language,
            tested=settings.verify.tests(problem),
            runs=settings.verify.runs(problem),
            **{name: found[problem.problem_id][name] for name in numbers},
        )
        for problem in problems
    }


def estimates(
    problems: Mapping[str, ProblemCounts], ks: Sequence[int], resamples: int, seed: int
) -> dict[str, Estimate]:
    """Every measure over the problems that have a value for it, with its interval."""
    return {
        name: estimate(
            list(values.values()), [problems[problem].group for problem in values], resamples, seed
        )
        for name, values in problem_values(problems, ks).items()
    }


def breakdowns(
    problems: Mapping[str, ProblemCounts], ks: Sequence[int], resamples: int, seed: int
) -> dict[Breakdown, dict[str, dict[str, Estimate]]]:
    """The measures of the problems of each difficulty, tag and language.

    A problem that names none is in none; one with several tags is in the row of each.
    """
    found: dict[Breakdown, dict[str, dict[str, Estimate]]] = {}
    for name, of in _BREAKDOWNS.items():
        rows = {}
        for value in sorted({value for counts in problems.values() for value in of(counts)}):
            of_value = {p: counts for p, counts in problems.items() if value in of(counts)}
            rows[value] = estimates(of_value, ks, resamples, seed)
        if rows:
            found[name] = rows
    return found


def _shares(
    problems: Sequence[Problem], judged: Sequence[Judged], settings: Settings
) -> dict[str, float]:
    """By name in SHARES, the fraction of the samples that were judged."""
    by_id = {problem.problem_id: problem for problem in problems}
    own = settings.verify.own() is not None
    shares: Counter[str] = Counter()
    number = 0
    for row in judged:
        outcome, problem = row.verdict["outcome"], by_id[row.verdict["problem_id"]]
        if outcome == Outcome.INFRA_ERROR:
            continue
        number += 1
        shares["no_code"] += outcome == Outcome.NO_CODE
        shares["cut_off"] += row.sample["finish_reason"] == "length"
        shares["timed_out"] += outcome == Outcome.TIMEOUT
        # What a function or a verifier of the user's own judges need neither read nor print.
        if outcome != Outcome.PASSED and problem.judge not in TEST_CODE_JUDGES and not own:
            shares["trivial"] += _is_trivial(row, problem, settings.verify.verifier)
    return {name: shares[name] / number for name in SHARES}


def _is_trivial(row: Judged, problem: Problem, verifier: str) -> bool:
    """Whether a sample that did not pass could have passed no test of `problem`."""
    answer = answer_of(row.sample, problem, verifier, own=False)
    if answer is None:
        return False
    toolchain = select(verifier, problem.language, answer.language)
    reads_input = any(test.stdin.strip() for test in problem.tests)
    return toolchain is not None and is_trivial(answer.code, toolchain.language, reads_input)


def _counted(verdicts: Sequence[Mapping[str, str]], name: str) -> dict[str, int]:
    """How often each value of a field occurs, blanks apart, in the order of values."""
    return dict(sorted(Counter(v[name] for v in verdicts if v[name]).items()))
