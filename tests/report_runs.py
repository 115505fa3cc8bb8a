"""Run folders of any size for the page, with no model and no verifier."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.schema import SAMPLE_SCHEMA, VERDICT_SCHEMA, Outcome
from haloforge.store.layout import METRICS, SECONDS, STATISTICS
from haloforge.verify.rewards import reward

SHARD_ROWS = 4096
PROGRAM = """#include <iostream>

int main() {
  int total = 0, value;
  while (std::cin >> value) total += value;
  std::cout << total << "\\n";  // the sum
}
"""
MIX: dict[str, float] = {
    Outcome.NO_CODE: 3,
    Outcome.COMPILE_ERROR: 22,
    Outcome.COMPILED: 4,
    Outcome.RUNTIME_ERROR: 5,
    Outcome.TIMEOUT: 6,
    Outcome.WRONG_ANSWER: 40,
    Outcome.PASSED: 20,
}
"""Outcomes by weight."""
_RAN = (Outcome.RUNTIME_ERROR, Outcome.WRONG_ANSWER, Outcome.PASSED)


def write_samples(
    folder: Path,
    number: int,
    mix: Mapping[str, float] = MIX,
    seed: int = 0,
    texts: Mapping[str, Any] | None = None,
    tests: int = 3,
    seconds: float = 100.0,
) -> None:
    """Commits so many samples of the mix, in whole shards; `texts` are columns of every row."""
    draw = random.Random(seed)
    kinds = draw.choices(list(mix), list(mix.values()), k=number)
    for name in ("samples", "verdicts", "commits"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for place, begin in enumerate(range(0, number, SHARD_ROWS), 1):
        rows = [
            _row(Outcome(kind), begin + n, draw, tests, texts or {})
            for n, kind in enumerate(kinds[begin : begin + SHARD_ROWS])
        ]
        shard = f"{place:06d}.parquet"
        for kind, schema in (("samples", SAMPLE_SCHEMA), ("verdicts", VERDICT_SCHEMA)):
            chosen = [{name: row[name] for name in schema.names} for row in rows]
            table = pa.Table.from_pylist(chosen, schema=schema)
            pq.write_table(table, folder / kind / shard, compression="zstd")
        manifest = {"shard": shard, "rows": len(rows), "seconds": seconds}
        (folder / "commits" / f"{place:06d}.json").write_text(json.dumps(manifest) + "\n")


def _row(
    kind: Outcome, number: int, draw: random.Random, tests: int, texts: Mapping[str, Any]
) -> dict[str, Any]:
    passed = tests if kind is Outcome.PASSED else 0
    ran = kind in _RAN
    errors = f"main.cpp:{number % 60}:3: error: 'x{number}' was not declared in this scope"
    return {
        "sample_id": f"s{number}",
        "problem_id": f"p{number // 8}",
        "cycle": 1,
        "index": number % 8,
        "completion": f"The sum of all, number {number}:\n```cpp\n{PROGRAM}```\n",
        "finish_reason": "length" if draw.random() < 0.02 else "stop",
        "num_tokens": max(1, int(draw.gauss(180, 60))),
        "logprob_sum": None,
        "policy": "policy",
        "sampling": "{}",
        "outcome": kind.value,
        "compiled": kind not in (Outcome.NO_CODE, Outcome.COMPILE_ERROR, Outcome.INFRA_ERROR),
        "ran": ran,
        "warnings": False,
        "reward": reward(kind, False, ran),
        "tests_passed": passed,
        "tests_total": tests,
        "diagnostics": errors if kind is Outcome.COMPILE_ERROR else "",
        "compile_ms": 400.0,
        "run_ms": 3.0,
        "toolchain": "gcc 12.2.0",
        "sandbox_tier": "bubblewrap",
        "raw_outcome": None,
        **texts,
    }


def record(cycle: int, samples: int, health: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A cycle's in the statistics."""
    kept = samples // 5
    dropped = {"below_threshold": samples // 2, "duplicate": samples // 10}
    dropped["not_in_top"] = samples - kept - sum(dropped.values())
    signs = {
        "duplicates": 0.1 + 0.03 * cycle,
        "trivial": 0.02,
        "mean_tokens": 180.0,
        "answer_entropy": 0.9 - 0.03 * cycle,
        "nats_per_token": None,
    }
    selection = {
        "samples": samples,
        "outcomes": {"passed": samples},
        "kept": kept,
        "dropped": dropped,
        "earlier": {"kept": 0},
        "health": {**signs, **(health or {})},
    }
    plan = {"problems": samples // 8}
    return {"cycle": cycle, "selection": selection, "plan": plan, "learning_rate": 5e-5}


def write_training(folder: Path, steps: int, begin: float = 0.8, **facts: Any) -> None:
    """The metrics of so many steps and, unless the folder is of a training, what was made."""
    folder.mkdir(parents=True)
    rows = [
        {
            "step": step,
            "num_steps": steps,
            "loss": round(begin * (0.6 + 0.4 / step), 4),
            "lr": 5e-5 * (1 - step / (steps + 1)),
            "eval_loss": round(begin * 1.1, 4) if step % 25 == 0 else None,
            "tokens_per_s": 900.0,
        }
        for step in range(1, steps + 1)
    ]
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    if not folder.name.endswith(".training"):
        training = {"steps": steps, "rows": steps * 8, "trained_tokens": steps * 900, **facts}
        info = {"base_public_id": "some/base", "base_digest": "abcd", "training": training}
        info["versions"] = {"haloforge": "0.1.0", "ray": "2.60.0"}
        (folder / "haloforge.json").write_text(json.dumps(info))


def write_raft(
    run: Path,
    cycles: int = 2,
    samples: int = 64,
    health: Sequence[Mapping[str, Any] | None] = (),
    mix: Mapping[str, float] = MIX,
    steps: int = 40,
    **texts: Any,
) -> Path:
    """A finished run of RAFT, `health` of each cycle where it is told."""
    told = [*health, *[None] * cycles]
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(json.dumps({"what": "raft"}))
    settings = {"model": "some/base", "language": "cpp", "raft": {"cycles": cycles}}
    (run / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    for cycle in range(1, cycles + 1):
        folder = run / f"cycle_{cycle}"
        write_samples(folder, samples, mix, cycle, texts)
        seconds = {"sample_and_verify": 310.5, "select": 2.0, "train": 140.0}
        (folder / SECONDS).write_text(json.dumps(seconds))
        write_training(run / f"cycle_{cycle}_final", steps, 0.9 / cycle)
    records = [record(cycle, samples, told[cycle - 1]) for cycle in range(1, cycles + 1)]
    (run / STATISTICS).write_text(json.dumps(records))
    return run


def interval(
    at: float,
    stage: str = "raft",
    phase: str = "sample_and_verify",
    cycle: int | None = 1,
    **more: Any,
) -> dict[str, Any]:
    """A row of `activity.jsonl` of ten seconds."""
    training = phase == "train"
    return {
        "at": at,
        "seconds": 10.0,
        "stage": stage,
        "phase": phase,
        "cycle": cycle,
        "engines": {} if training else {"engine-0": {"in_flight": 48.0, "capacity": 64}},
        "verifiers": None if training else {"actors": 2, "busy": 0.5, "queued": 7},
        "trainers": {"workers": 1, "busy": 0.9} if training else None,
        "samples": 0 if training else 20,
        "tokens": 0 if training else 3600,
        "cached": 0,
        "outcomes": {},
        "restarts": {},
        **more,
    }


def write_activity(run: Path, rows: Sequence[Mapping[str, Any]], torn: str = "") -> None:
    """The rows, and the beginning of one that is being written."""
    (run / "logs").mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "logs" / "activity.jsonl").write_text(text + torn)
