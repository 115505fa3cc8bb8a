"""A benchmark of one model: samples judged, then compile@k and pass@k with intervals."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from haloforge.benchmark.passk import Estimate, estimate, pass_at_k
from haloforge.benchmark.problems import problems_to_measure
from haloforge.config import Settings, save_settings
from haloforge.data.problems import prompts_digest
from haloforge.errors import InfraError
from haloforge.model.adapter import installed_versions
from haloforge.model.card import add_results
from haloforge.model.policy import Policy
from haloforge.rollout.settings import Sampling, sampling_of
from haloforge.sampling import sample_and_judge
from haloforge.schema import TEST_CODE_JUDGES, Outcome, Problem, digest
from haloforge.session import Session
from haloforge.store.run import Identity, identity_of, open_run, write_atomic
from haloforge.store.shards import Judged, read_judged
from haloforge.verify.extract import extract
from haloforge.verify.toolchains import default_language, select
from haloforge.verify.trivial import is_trivial

SHARES = ("no_code", "cut_off", "timed_out", "trivial")


@dataclass(frozen=True)
class Result:
    """One model on one set of problems.

    `measures` maps compile_rate (the mean over problems of the share of samples that compile),
    compile@k and, where problems have tests, pass@k to estimates over problems; `values` holds
    what each problem gave, and `groups` which problems are variants of one. `shares` are fractions
    of the judged samples that had no code, were cut off at the token limit, timed out, or were
    trivial. `infra_errors` counts samples lost to failures of ours: they are left out, and make the
    result incomplete. `samples_digest` changes with any sample's identity or text.
    """

    model: str
    policy: str
    problems: int
    samples: int
    measures: dict[str, Estimate]
    values: dict[str, dict[str, float]] = field(repr=False)
    groups: dict[str, str] = field(repr=False)
    shares: dict[str, float]
    outcomes: dict[str, int]
    infra_errors: int
    samples_digest: str
    settings: dict[str, Any] = field(repr=False)

    @property
    def complete(self) -> bool:
        """Whether no sample was lost to a failure of ours."""
        return self.infra_errors == 0


@dataclass
class _Counts:
    """Samples of one problem: judged, compiled, passed."""

    judged: int = 0
    compiled: int = 0
    passed: int = 0


def benchmark(
    session: Session,
    policy: Policy,
    output: Path,
    fresh: bool = False,
    settings: Settings | None = None,
) -> Result:
    """Measures `policy` on `benchmark.prompts` and writes samples and `results.json` to `output`.

    `settings` are the session's but for those of the benchmark, where they are given. Raises what
    `sample_and_judge` raises, and InputError where `output` holds another run.
    """
    settings = settings or session.settings
    chosen = settings.benchmark
    problems, excluded, suite = problems_to_measure(settings, session.chats_with(policy))
    sampling = benchmark_sampling(settings)
    identity: Identity = {
        "what": "benchmark",
        "problems": prompts_digest(problems),
        "policy": policy.digest,
        "samples": chosen.samples,
        "sampling": identity_of(sampling),
        "verify": settings.verify.judging(),
        "system": settings.system or policy.system,
        "seed": settings.seed,
    }
    title = f"benchmark {policy.name}"
    if excluded:
        identity["excluded"] = excluded
        session.report.say(f"{title}: {excluded} problems left out, as {chosen.exclude} says")
    if suite:
        session.report.say(
            f"{title}: {suite['title']} ({suite['version']}; {suite['licence']}), "
            f"{len(problems)} problems, prompt style {suite['prompt_style']}"
        )
    run = open_run(output, identity, fresh)
    save_settings(settings, output)
    sample_and_judge(session, policy, problems, chosen.samples, sampling, run, 0, output, title)
    result = score(policy, problems, list(read_judged(output)), settings)
    result.settings["excluded"] = excluded
    result.settings["suite"] = suite
    write_atomic(output / "results.json", json.dumps(_as_json(result), indent=2) + "\n")
    if policy.adapter is not None:
        add_results(policy.adapter, _title(result), {m: str(e) for m, e in result.measures.items()})
    return result


def default_output(policy: Policy) -> Path:
    """A folder beside the adapter, or `models/benchmark/<name>` for a base."""
    if policy.adapter is not None:
        return policy.adapter.with_name(f"{policy.adapter.name}_benchmark")
    return Path("models") / "benchmark" / policy.base.public_id.replace("/", "--")


def suites_output(policy: Policy) -> Path:
    """The folder beside the model that holds a folder for each suite."""
    output = default_output(policy)
    return output.with_name(f"{output.name.removesuffix('_benchmark')}_suites")


def benchmark_sampling(settings: Settings) -> Sampling:
    """How the benchmark samples: greedy where it draws one sample a problem."""
    rollout = settings.rollout
    if settings.benchmark.temperature is not None:
        rollout = rollout.model_copy(update={"temperature": settings.benchmark.temperature})
    return sampling_of(rollout, greedy=settings.benchmark.samples == 1)


def score(
    policy: Policy, problems: Sequence[Problem], judged: Sequence[Judged], settings: Settings
) -> Result:
    """The measures of judged samples. Problems without tests count for compiling alone."""
    by_id = {problem.problem_id: problem for problem in problems}
    counts = {problem.problem_id: _Counts() for problem in problems}
    outcomes: Counter[str] = Counter()
    shares: Counter[str] = Counter(dict.fromkeys(SHARES, 0))
    for row in judged:
        outcome = row.verdict["outcome"]
        outcomes[outcome] += 1
        if outcome == Outcome.INFRA_ERROR:
            continue
        problem = by_id[row.verdict["problem_id"]]
        count = counts[problem.problem_id]
        count.judged += 1
        count.compiled += row.verdict["compiled"]
        count.passed += outcome == Outcome.PASSED
        shares["no_code"] += outcome == Outcome.NO_CODE
        shares["cut_off"] += row.sample["finish_reason"] == "length"
        shares["timed_out"] += outcome == Outcome.TIMEOUT
        shares["trivial"] += outcome != Outcome.PASSED and _is_trivial(row, problem, settings)
    tested = [problem for problem in problems if settings.verify.tests(problem)]
    chosen = settings.benchmark
    groups = {problem.problem_id: problem.group or problem.problem_id for problem in problems}
    values: dict[str, dict[str, float]] = {}

    def add(name: str, over: Sequence[Problem], least: int, value: Any) -> None:
        """The measure `name` of the problems that have `least` judged samples."""
        ids = [problem.problem_id for problem in over]
        kept = {name: value(counts[name]) for name in ids if counts[name].judged >= least}
        if kept:
            values[name] = kept

    add("compile_rate", problems, 1, lambda c: c.compiled / c.judged)
    for k in chosen.k:
        add(f"compile@{k}", problems, k, lambda c, k=k: pass_at_k(c.judged, c.compiled, k))
        add(f"pass@{k}", tested, k, lambda c, k=k: pass_at_k(c.judged, c.passed, k))
    if not values:
        raise InfraError("no sample could be judged; see the outcomes' diagnostics in verdicts/")
    measures = {
        name: estimate(
            list(kept.values()), [groups[i] for i in kept], chosen.resamples, settings.seed
        )
        for name, kept in values.items()
    }
    number = sum(count.judged for count in counts.values())
    return Result(
        model=policy.name,
        policy=policy.digest,
        problems=len(problems),
        samples=chosen.samples,
        measures=measures,
        values=values,
        groups=groups,
        shares={name: count / number for name, count in shares.items()},
        outcomes=dict(outcomes),
        infra_errors=outcomes[Outcome.INFRA_ERROR],
        samples_digest=digest(
            *sorted(f"{row.sample['sample_id']} {row.sample['completion']}" for row in judged)
        ),
        settings={
            **benchmark_sampling(settings).model_dump(),
            "prompts": chosen.prompts,
            "seed": settings.seed,
            "resamples": chosen.resamples,
        },
    )


def _is_trivial(row: Judged, problem: Problem, settings: Settings) -> bool:
    """Whether a sample that did not pass could have passed no test of `problem`."""
    if problem.judge in TEST_CODE_JUDGES or settings.verify.own():
        return False  # what is judged so need neither read nor print
    verifier = settings.verify.verifier
    answer = extract(row.sample["completion"], default_language(verifier, problem.language))
    if answer is None:
        return False
    toolchain = select(verifier, problem.language, answer.language)
    reads_input = any(test.stdin.strip() for test in problem.tests)
    return toolchain is not None and is_trivial(answer.code, toolchain.language, reads_input)


def _title(result: Result) -> str:
    """What was measured, for the model card."""
    source = Path(result.settings["prompts"]).name
    excluded = result.settings.get("excluded")
    left_out = f" ({excluded} left out)" if excluded else ""
    missing = "" if result.complete else f" Incomplete: {result.infra_errors} samples were lost."
    return (
        f"{result.problems} problems of `{source}`{left_out}, {result.samples} samples each at "
        f"temperature {result.settings['temperature']:g}; mean over problems with its 95% interval."
        f"{missing}"
    )


def _as_json(result: Result) -> dict[str, Any]:
    return {**asdict(result), "complete": result.complete, "versions": installed_versions()}
