"""`results.json`: what a benchmark found, and all that is needed to judge and compare it.

The schema is `results.schema.json` beside this file (JSON Schema); README.md explains the fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, ValidationError, model_validator

from haloforge.benchmark.passk import Estimate, pass_at_k
from haloforge.data.jsonl import first_fault
from haloforge.errors import InputError
from haloforge.schema import Row

RESULTS = "results.json"
SCHEMA_VERSION = 1
Breakdown = Literal["difficulty", "tag", "language"]


class ProblemCounts(Row):
    """What the samples of one problem came to.

    `n` of them were judged, of which so many compiled, ran to the end and passed; `raw_n` were
    judged as they stand too. `infra` more were lost to failures of ours. `tested` says whether the
    problem has tests, `runs` whether verdicts say how its programs ran.
    """

    group: str
    difficulty: str | None = None
    tags: list[str] = []
    language: str | None = None
    tested: bool
    runs: bool
    n: NonNegativeInt
    compiled: NonNegativeInt
    ran: NonNegativeInt
    passed: NonNegativeInt
    raw_n: NonNegativeInt = 0
    raw_passed: NonNegativeInt = 0
    infra: NonNegativeInt = 0

    @model_validator(mode="after")
    def _within(self) -> "ProblemCounts":
        if max(self.compiled, self.ran, self.passed) > self.n or self.raw_passed > self.raw_n:
            raise ValueError("more samples are counted than were judged")
        return self


class MeasureSettings(Row):
    """What was asked for: the source of problems, the facts of the `suite` where it is one (its
    version, licence and `prompt_style` among them), how many were `excluded` from it, how samples
    were drawn, and what the intervals resample."""

    prompts: str
    excluded: int = 0
    suite: dict[str, Any] | None = None
    temperature: float
    top_p: float
    top_k: int = 0
    max_tokens: int
    stop_at_fence: bool
    logprobs: bool
    k: list[int]
    seed: int
    resamples: int


class Throughput(Row):
    """Tokens that the model wrote, and the wall seconds in which they were written and judged, over
    all sittings, without the start of engines."""

    generated_tokens: int
    seconds: float
    tokens_per_second: float | None


class Hardware(Row):
    """The machine that drove the benchmark, and what Ray had in all."""

    cpu: str
    cores: int
    memory_gb: float
    ray_nodes: int
    ray_cpus: float
    ray_gpus: float
    accelerators: list[str]


class Environment(Row):
    """Versions of what shaped the samples, and the hardware, of the sitting that ended the run."""

    versions: dict[str, str]
    hardware: Hardware


class Result(Row):
    """One model on one set of problems.

    `measures` maps compile_rate and run_rate (the mean over problems of the share of samples that
    compile, and that run to the end without a crash), compile@k and, where problems have tests,
    pass@k and raw_pass@k to estimates over problems; `breakdowns` holds the same of the problems of
    each difficulty, tag and language. `shares` are fractions of the judged samples that had no
    code, were cut off at the token limit, timed out, or were trivial. `infra_errors` counts samples
    of which a failure of ours kept something from being judged: they are left out, and make the
    result incomplete. `samples_digest` changes with any sample's identity or text.
    """

    schema_version: Literal[1]
    model: str
    policy: str
    base: str
    base_digest: str
    problems: int
    problems_digest: str
    samples: int
    settings: MeasureSettings
    measures: dict[str, Estimate]
    breakdowns: dict[Breakdown, dict[str, dict[str, Estimate]]] = {}
    shares: dict[str, float]
    outcomes: dict[str, int]
    infra_errors: int
    complete: bool
    samples_digest: str
    toolchains: dict[str, int] = {}
    sandbox_tiers: dict[str, int] = {}
    limits: dict[str, float | None] = {}
    throughput: Throughput | None = None
    environment: Environment | None = None
    config: dict[str, Any] = {}
    per_problem: dict[str, ProblemCounts]

    @model_validator(mode="after")
    def _agrees(self) -> "Result":
        if self.complete != (self.infra_errors == 0):
            raise ValueError("'complete' does not agree with 'infra_errors'")
        return self

    @property
    def values(self) -> dict[str, dict[str, float]]:
        """What each problem gave, by measure."""
        return problem_values(self.per_problem, self.settings.k)

    @property
    def groups(self) -> dict[str, str]:
        """Which problems are variants of one."""
        return {name: counts.group for name, counts in self.per_problem.items()}


def problem_values(
    problems: Mapping[str, ProblemCounts], ks: Sequence[int]
) -> dict[str, dict[str, float]]:
    """By measure, the value of each problem that has enough samples for it; none is empty."""
    names = ["compile_rate", "run_rate"]
    names += [f"{measure}@{k}" for k in ks for measure in ("compile", "pass")]
    names += [f"raw_pass@{k}" for k in ks]
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    for problem, counts in problems.items():
        for name, value in _values(counts, ks):
            values[name][problem] = value
    return {name: found for name, found in values.items() if found}


def _values(c: ProblemCounts, ks: Sequence[int]) -> Iterator[tuple[str, float]]:
    if c.n:
        yield "compile_rate", c.compiled / c.n
    if c.n and c.runs:
        yield "run_rate", c.ran / c.n
    for k in ks:
        if c.n >= k:
            yield f"compile@{k}", pass_at_k(c.n, c.compiled, k)
        if c.n >= k and c.tested:
            yield f"pass@{k}", pass_at_k(c.n, c.passed, k)
        if c.raw_n >= k and c.tested:
            yield f"raw_pass@{k}", pass_at_k(c.raw_n, c.raw_passed, k)


def read_result(path: Path) -> Result:
    """The result in `path`, a benchmark's folder or its `results.json`.

    Raises InputError naming file and field for what is not of the schema, and for another version.
    """
    file = path / RESULTS if path.is_dir() else path
    try:
        return Result.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        fault = error.errors()[0]
        if "schema_version" in fault["loc"]:
            found = "missing" if fault["type"] == "missing" else repr(fault["input"])
            raise InputError(
                f"{file}: field 'schema_version': {found}, but this haloforge reads version "
                f"{SCHEMA_VERSION}; the benchmark run again writes that"
            ) from None
        raise InputError(f"{file}: {first_fault(error)}") from None
