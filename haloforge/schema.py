"""The rows that flow: `Problem`, `Sample` and `Verdict`, as typed classes and Arrow schemas."""

import ast
import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

Message = dict[str, str]
Comparison = Literal["exact", "whitespace", "float"]
CODE_JUDGES = ("function", "pytest")
"""Judges whose tests are Python code, and so are the answers."""
TEST_CODE_JUDGES = (*CODE_JUDGES, "program")
PROGRAM_LANGUAGES = ("cpp", "rust", "go", "javascript", "java")
UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast.parse` raises for Python that is none; the last two for what is nested too deeply."""


class Row(BaseModel):
    """A frozen row; an unknown field is an error, so that a typo never passes in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Test(Row):
    """One run of a program: what it reads, and what it must print."""

    __test__ = False  # not a pytest class

    stdin: str
    stdout: str


class Limits(Row):
    """A problem's own limits; None keeps the judge's default."""

    wall_s: float | None = Field(None, gt=0)
    cpu_s: float | None = Field(None, gt=0)
    memory_mb: int | None = Field(None, gt=0)
    processes: int | None = Field(None, gt=0)
    output_kb: int | None = Field(None, gt=0)
    file_mb: int | None = Field(None, gt=0)
    files: int | None = Field(None, gt=0)


class Problem(Row):
    """Something to solve, and how an answer is judged.

    One of `prompt` (one user turn), `messages` and `prefix` is given. `prefix` is text that the
    model continues as it stands, with no chat template, as base models are asked; the answer is
    then code as it stands. `answer_start` is how the answer begins, given to the model (of a
    `prefix` its end, by default all of it), and `stop` are strings at which the answer ends, which
    are no part of it. `prelude` is code that is put before the answer where it is judged.

    `group` names the variants of one problem, which never straddle a split. `starter_code` maps a
    language to how a program begins, which is given to the model as the start of its answer;
    `reference` maps one to a solution, which is part of no prompt.

    `tests` are for judge `stdio`; what is printed is compared by `comparison`, with
    `float_tolerance` for `float` (see `verify/judges/comparison.py`), or by `checker`, Python that
    defines `check(stdin, stdout, expected) -> bool`. `test_code` is for judge `function` (asserts,
    `test_*` functions, or `check(candidate)`, given the function that `entry_point` names) and for
    `pytest` (a file that imports the answer as `solution`, `main` or the name in `entry_point`).
    For `program` it is code in the answer's language, appended to the answer (see
    `verify/judges/program.py`).
    """

    problem_id: str
    prompt: str | None = None
    messages: list[Message] | None = None
    prefix: str | None = None
    answer_start: str | None = None
    stop: list[str] = []
    prelude: str | None = None
    system: str | None = None
    language: str | None = None
    starter_code: dict[str, str] = {}
    judge: Literal["compile", "stdio", "function", "pytest", "program"] = "compile"
    tests: list[Test] = []
    comparison: Comparison = "whitespace"
    float_tolerance: float | None = Field(None, gt=0, lt=1)
    checker: str | None = None
    test_code: str | None = None
    entry_point: str | None = None
    limits: Limits = Limits()
    group: str | None = None
    reference: dict[str, str] = {}
    source: str | None = None
    license: str | None = None
    difficulty: str | None = None
    tags: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _python(cls, row: Any) -> Any:
        code = isinstance(row, dict) and row.get("judge") in CODE_JUDGES
        return {**row, "language": row.get("language") or "python"} if code else row

    @model_validator(mode="after")
    def _check(self) -> "Problem":
        if [self.prompt, self.messages, self.prefix].count(None) != 2:
            raise ValueError("give 'prompt', 'messages' or 'prefix', one of them")
        if self.prefix is not None and not self.prefix.endswith(self.answer_start or ""):
            raise ValueError("'prefix' must end with 'answer_start'")
        if "" in self.stop:
            raise ValueError("'stop' must hold no empty string")
        if self.judge == "stdio" and not self.tests:
            raise ValueError("judge 'stdio' needs at least one row in 'tests'")
        if self.judge in TEST_CODE_JUDGES and not self.test_code:
            raise ValueError(f"judge '{self.judge}' needs 'test_code'")
        if self.judge == "program" and self.language not in PROGRAM_LANGUAGES:
            raise ValueError(
                f"judge 'program' needs a 'language' of {', '.join(PROGRAM_LANGUAGES)}"
            )
        for name, value, judges in (
            ("comparison", self.comparison != "whitespace", ("stdio",)),
            ("checker", self.checker, ("stdio",)),
            ("test_code", self.test_code, TEST_CODE_JUDGES),
            ("entry_point", self.entry_point, CODE_JUDGES),
        ):
            if value and self.judge not in judges:
                raise ValueError(f"'{name}' is for judge {' or '.join(judges)}, not {self.judge}")
        if self.float_tolerance is not None and self.comparison != "float":
            raise ValueError("'float_tolerance' needs 'comparison' to be 'float'")
        if self.checker is not None and self.comparison != "whitespace":
            raise ValueError("give 'checker' or 'comparison', one of them")
        if self.checker is not None and "check" not in _functions("checker", self.checker):
            raise ValueError("'checker' must define check(stdin, stdout, expected)")
        if self.test_code and self.judge in CODE_JUDGES:
            _functions("test_code", self.test_code)
        if self.entry_point is not None and not self.entry_point.isidentifier():
            raise ValueError(f"'entry_point' must be a name, not '{self.entry_point}'")
        return self

    def turns(self, system: str | None = None) -> list[Message]:
        """The conversation put to the model; `system` is used where the problem has none."""
        turns = self.messages or [{"role": "user", "content": self.prompt or ""}]
        head = self.system or system
        if head and turns[0]["role"] != "system":
            return [{"role": "system", "content": head}, *turns]
        return turns


def _functions(name: str, source: str) -> list[str]:
    """The functions that `source` defines. Raises ValueError where it does not parse."""
    try:
        tree = ast.parse(source)
    except UNPARSED as error:
        raise ValueError(f"'{name}' does not parse: {str(error) or 'nested too deeply'}") from None
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


class Outcome(StrEnum):
    """How a sample ended. `INFRA_ERROR` is apart: our failure, never scored."""

    NO_CODE = "no_code"
    COMPILE_ERROR = "compile_error"
    COMPILED_WITH_WARNINGS = "compiled_with_warnings"
    COMPILED = "compiled"
    RUNTIME_ERROR = "runtime_error"
    TIMEOUT = "timeout"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    WRONG_ANSWER = "wrong_answer"
    PASSED = "passed"
    INFRA_ERROR = "infra_error"


class Sample(Row):
    """One completion, with the starter code that it was given as its beginning.

    `num_tokens` and `logprob_sum`, the sum of their log-probabilities under the sampling policy in
    nats, are of the tokens that the policy wrote.
    """

    sample_id: str
    problem_id: str
    cycle: int
    index: int
    completion: str
    finish_reason: str
    num_tokens: int
    logprob_sum: float | None
    policy: str
    sampling: str


class Verdict(Row):
    """What the judge found. Times are wall milliseconds, summed over tests for `run_ms`.

    `raw_outcome` is that of the completion as it stands, with nothing extracted; None where it was
    not judged so.
    """

    sample_id: str
    problem_id: str
    outcome: Outcome
    compiled: bool
    ran: bool
    warnings: bool
    reward: float
    tests_passed: int
    tests_total: int
    diagnostics: str
    compile_ms: float
    run_ms: float
    toolchain: str
    sandbox_tier: str
    raw_outcome: Outcome | None = None


SAMPLE_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("problem_id", pa.string()),
        ("cycle", pa.int32()),
        ("index", pa.int32()),
        ("completion", pa.string()),
        ("finish_reason", pa.string()),
        ("num_tokens", pa.int32()),
        ("logprob_sum", pa.float64()),
        ("policy", pa.string()),
        ("sampling", pa.string()),
    ]
)

VERDICT_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("problem_id", pa.string()),
        ("outcome", pa.string()),
        ("compiled", pa.bool_()),
        ("ran", pa.bool_()),
        ("warnings", pa.bool_()),
        ("reward", pa.float32()),
        ("tests_passed", pa.int32()),
        ("tests_total", pa.int32()),
        ("diagnostics", pa.string()),
        ("compile_ms", pa.float32()),
        ("run_ms", pa.float32()),
        ("toolchain", pa.string()),
        ("sandbox_tier", pa.string()),
        ("raw_outcome", pa.string()),
    ]
)


def digest(*parts: Any) -> str:
    """First 16 hex digits of the SHA-256 over `parts`, each closed by a NUL."""
    return digest_of(parts)


def digest_of(parts: Iterable[Any]) -> str:
    """`digest` of a stream."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(str(part).encode() + b"\0")
    return sha.hexdigest()[:16]


def sample_id(run: str, cycle: int, problem_id: str, index: int) -> str:
    """The identity of a sample: the same run, cycle, problem and index give the same id."""
    return digest(run, cycle, problem_id, index)
