"""Run folders with judged samples, as a cycle of RAFT leaves them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from haloforge.raft.select import Selection, select
from haloforge.raft.settings import RaftSettings
from haloforge.schema import Outcome, Problem, sample_id
from haloforge.store.shards import ShardWriter
from haloforge.verify.settings import VerifySettings

OUTCOMES = {
    0.0: Outcome.COMPILE_ERROR,
    0.3: Outcome.COMPILED_WITH_WARNINGS,
    0.5: Outcome.COMPILED,
    0.7: Outcome.WRONG_ANSWER,
    1.0: Outcome.PASSED,
}


class Row(NamedTuple):
    """A sample of a problem and what was found of it; `code` None: one unlike all others."""

    problem: str
    number: int
    reward: float
    code: str | None = None
    finish: str = "stop"
    outcome: str | None = None
    tokens: int = 10
    logprob_sum: float | None = None


def problem(name: str, tests: bool = True, **fields: Any) -> Problem:
    """A problem in C++, which has a test that reads unless it has none."""
    if tests:
        fields = {"judge": "stdio", "tests": [{"stdin": "1\n", "stdout": "1\n"}], **fields}
    row = {"problem_id": name, "prompt": f"Do {name}.", "language": "cpp", **fields}
    return Problem.model_validate(row)


def write_cycle(run: Path, cycle: int, rows: Sequence[Row], commit: int = 7) -> None:
    """Commits the rows, so many a shard."""
    with ShardWriter(run / f"cycle_{cycle}") as shards:
        for number, row in enumerate(rows, 1):
            shards.add(*stored(row, cycle))
            if number % commit == 0:
                shards.commit()


def selected(
    run: Path,
    rows: Sequence[Row],
    cycle: int = 1,
    problems: Sequence[Problem] | None = None,
    seed: int = 0,
    **rules: Any,
) -> Selection:
    """What is chosen of these rows; their problems have tests unless `problems` are given."""
    write_cycle(run, cycle, rows)
    if problems is None:
        problems = [problem(name) for name in sorted({row.problem for row in rows})]
    settings = RaftSettings.model_validate({"keep_top_percent": 1.0, **rules})
    return select(run, cycle, problems, settings, VerifySettings(), seed)


def stored(row: Row, cycle: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its rows of SAMPLE_SCHEMA and VERDICT_SCHEMA."""
    name = sample_id("run", cycle, row.problem, row.number)
    code = row.code
    if code is None:
        code = f"int main() {{ return {row.number} + {cycle}00; }}"
    sample = {
        "sample_id": name,
        "problem_id": row.problem,
        "cycle": cycle,
        "index": row.number,
        "completion": f"```cpp\n{code}\n```\n" if code else "I do not know.",
        "finish_reason": row.finish,
        "num_tokens": row.tokens,
        "logprob_sum": row.logprob_sum,
        "policy": f"policy {cycle}",
        "sampling": "{}",
    }
    outcome = row.outcome or OUTCOMES.get(row.reward, Outcome.COMPILED)
    verdict = {
        "sample_id": name,
        "problem_id": row.problem,
        "outcome": outcome,
        "compiled": row.reward > 0,
        "ran": row.reward >= 0.7,
        "warnings": False,
        "reward": row.reward,
        "tests_passed": 0,
        "tests_total": 1,
        "diagnostics": "",
        "compile_ms": 1.0,
        "run_ms": 1.0,
        "toolchain": "gcc",
        "sandbox_tier": "bubblewrap",
        "raw_outcome": None,
    }
    return sample, verdict
