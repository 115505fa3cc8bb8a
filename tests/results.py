"""Results of benchmarks made from judged rows, with no model and no verifier."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from haloforge.benchmark.results import Result
from haloforge.benchmark.scoring import score
from haloforge.config import load_settings
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.schema import Problem, Test
from haloforge.store.shards import Judged

POLICY = Policy("toy", Base("toy", "toy", Path("toy"), "base"), None, "digest")
READS = "```cpp\nint main() { int a; std::cin >> a; std::cout << a; }\n```"
ENDED = ("passed", "wrong_answer")  # outcomes of programs that ran to their end
NO_PROGRAM = ("no_code", "compile_error", "infra_error")


def problems(count: int, **fields: Any) -> list[Problem]:
    tests = [Test(stdin="1\n", stdout="1\n")]
    given = {"prompt": "?", "language": "cpp", "judge": "stdio", "tests": tests, **fields}
    return [Problem(problem_id=f"p{i}", **given) for i in range(count)]


def judged(
    problem: int,
    index: int,
    outcome: str,
    text: str = READS,
    end: str = "stop",
    raw: str | None = None,
    toolchain: str = "gcc 12",
) -> Judged:
    """Whole rows, as a benchmark commits them."""
    identity = {"sample_id": f"{problem}/{index}", "problem_id": f"p{problem}"}
    told: dict[str, Any] = {"completion": text, "finish_reason": end, "index": index}
    drawn = {"cycle": 0, "num_tokens": 7, "logprob_sum": None, "policy": "digest", "sampling": "{}"}
    verdict = {
        "outcome": outcome,
        "compiled": outcome not in NO_PROGRAM,
        "ran": outcome in ENDED,
        "warnings": False,
        "reward": 0.0,
        "tests_passed": int(outcome == "passed"),
        "tests_total": 1,
        "diagnostics": "",
        "compile_ms": 1.0,
        "run_ms": 1.0,
        "toolchain": toolchain if outcome not in NO_PROGRAM else "",
        "sandbox_tier": "bubblewrap",
        "raw_outcome": raw,
    }
    return Judged({**identity, **drawn, **told}, {**identity, **verdict})


def passing(
    right: list[int],
    samples: int,
    name: str = "toy",
    lost: int = 0,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Result:
    """Of problem i `right[i]` of so many samples passed; the others were wrong. `lost` more samples
    of the first problem were lost to failures of ours."""
    rows = [
        judged(problem, index, "passed" if index < number else "wrong_answer")
        for problem, number in enumerate(right)
        for index in range(samples)
    ]
    rows += [judged(0, samples + index, "infra_error") for index in range(lost)]
    given = {"benchmark.samples": samples, "benchmark.k": [1], "benchmark.resamples": 500}
    chosen = load_settings(None, {**given, **settings})
    policy = Policy(name, POLICY.base, None, name)
    return score(policy, problems(len(right)), rows, chosen)
