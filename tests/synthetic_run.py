"""A RAFT run of any size, made up: written as tables, for what takes too long sample by sample."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.raft.training_set import TRAINED_SCHEMA
from haloforge.schema import SAMPLE_SCHEMA, VERDICT_SCHEMA, Outcome, sample_id
from haloforge.store.problems_table import PROBLEMS, PROBLEMS_SCHEMA
from haloforge.store.shards import COMMIT_ROWS

_REWARDS = {
    Outcome.NO_CODE: 0.0,
    Outcome.COMPILE_ERROR: 0.0,
    Outcome.COMPILED_WITH_WARNINGS: 0.3,
    Outcome.COMPILED: 0.5,
    Outcome.RUNTIME_ERROR: 0.5,
    Outcome.TIMEOUT: 0.5,
    Outcome.WRONG_ANSWER: 0.7,
    Outcome.PASSED: 1.0,
}
_SHARES = [0.03, 0.31, 0.02, 0.02, 0.06, 0.04, 0.32, 0.2]
_PROGRAM = """\
Here is a program that does it.

```cpp
#include <iostream>
#include <vector>

using namespace std;

int main() {{
    long long n, total = {number};
    cin >> n;
    vector<long long> values(n);
    for (auto &value : values) {{
        cin >> value;
        total += value * {factor};
    }}
    // the sum of all values, each times {factor}
    cout << total % {modulus} << endl;
    return 0;
}}
```
"""
_ERROR = "main.cpp:{line}:5: error: 'valeus' was not declared in this scope; did you mean 'values'?"


def write_run(run: Path, cycles: int, problems: int, samples: int, kept: float = 0.1) -> None:
    """`samples` of each of the `problems` in each of the `cycles`, committed in full shards, of
    which the best, a share of `kept`, are what the cycle trained on."""
    names = [f"generated/{number:05d}-sum-of-values" for number in range(problems)]
    for cycle in range(1, cycles + 1):
        draw = np.random.default_rng(cycle)
        order = draw.permutation(problems * samples)
        best: list[tuple[float, dict[str, Any]]] = []
        for number, first in enumerate(range(0, len(order), COMMIT_ROWS), 1):
            rows = order[first : first + COMMIT_ROWS]
            pairs = list(_rows(draw, names, rows, samples, cycle))
            write_shard(run / f"cycle_{cycle}", number, *zip(*pairs, strict=True))
            best += [
                (verdict["reward"], _trained(sample, verdict, number)) for sample, verdict in pairs
            ]
        best.sort(key=lambda each: -each[0])
        chosen = [
            row | {"rank": rank} for rank, (_, row) in enumerate(best[: int(kept * len(best))])
        ]
        table = pa.Table.from_pylist(chosen, schema=TRAINED_SCHEMA)
        pq.write_table(table, run / f"cycle_{cycle}" / "trained.parquet", row_group_size=1024)
    asked = [
        {
            "problem_id": name,
            "prompt": f"Read n, then n integers, and print the sum of all, {name}.",
            "language": "cpp",
            "difficulty": "easy",
            "judge": "stdio",
            "source": None,
            "form": "turns",
        }
        for name in names
    ]
    pq.write_table(pa.Table.from_pylist(asked, schema=PROBLEMS_SCHEMA), run / PROBLEMS)


def write_shard(folder: Path, number: int, samples: Any, verdicts: Any) -> None:
    """Commits these rows as ShardWriter and `compact` leave them."""
    shard = f"{number:06d}.parquet"
    for kind, rows, schema in (
        ("samples", samples, SAMPLE_SCHEMA),
        ("verdicts", verdicts, VERDICT_SCHEMA),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, folder / kind / shard, compression="zstd", write_page_checksum=True)
    (folder / "commits").mkdir(exist_ok=True)
    manifest = {"shard": shard, "rows": len(samples), "seconds": 1.0}
    (folder / "commits" / f"{number:06d}.json").write_text(json.dumps(manifest) + "\n")


def _rows(
    draw: np.random.Generator, names: list[str], rows: Any, samples: int, cycle: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    outcomes = draw.choice(list(_REWARDS), len(rows), p=_SHARES)
    numbers = draw.integers(1, 1 << 30, len(rows))
    for row, outcome, number in zip(
        rows.tolist(), outcomes.tolist(), numbers.tolist(), strict=True
    ):
        problem, index = names[row // samples], row % samples
        same = {"sample_id": sample_id("run", cycle, problem, index), "problem_id": problem}
        sample = same | {
            "cycle": cycle,
            "index": index,
            "completion": _PROGRAM.format(number=number, factor=number % 97, modulus=number % 9973),
            "finish_reason": "length" if number % 20 == 0 else "stop",
            "num_tokens": 120 + number % 180,
            "logprob_sum": None,
            "policy": f"policy-{cycle}",
            "sampling": '{"temperature": 0.7}',
        }
        compiled = outcome not in (Outcome.NO_CODE, Outcome.COMPILE_ERROR)
        passed = 6 if outcome == Outcome.PASSED else number % 6 * compiled
        failed = outcome == Outcome.COMPILE_ERROR
        yield (
            sample,
            same
            | {
                "outcome": str(outcome),
                "compiled": compiled,
                "ran": compiled,
                "warnings": False,
                "reward": _REWARDS[Outcome(outcome)],
                "tests_passed": passed,
                "tests_total": 6,
                "diagnostics": _ERROR.format(line=number % 30) if failed else "",
                "compile_ms": 400.0,
                "run_ms": 20.0,
                "toolchain": "gcc 12.2.0",
                "sandbox_tier": "bubblewrap",
                "raw_outcome": None,
            },
        )


def _trained(sample: dict[str, Any], verdict: dict[str, Any], number: int) -> dict[str, Any]:
    copied = ("sample_id", "problem_id", "cycle", "index", "policy", "completion")
    return {name: sample[name] for name in copied} | {
        "reward": verdict["reward"],
        "outcome": verdict["outcome"],
        "shard": f"cycle_{sample['cycle']}/samples/{number:06d}.parquet",
        "problem_source": "generated.jsonl",
        "form": number,
    }
