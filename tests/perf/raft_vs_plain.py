"""Two cycles of RAFT by ours, over the same recipe with transformers and peft alone.

Both sides: the bundled model in the same number format, the same bundled problems without their
tests (so that both only compile: plain_raft.py has no sandbox to run programs in), the same
sampling, the best half of what compiles without a warning, LoRA of rank 16, and the same epochs,
global batch and learning rate. From models on disk to the adapter of the last cycle, imports done.
Ours is `raft` on a warm session; what Ray and the engine took to start is told apart. The sides
alternate.

They draw different samples, so the reference's seconds of generation are scaled to our tokens, and
those of training to our trained tokens. All else is as it was. `ours` and `reference` are runs per
hour. `python -m tests.perf.raft_vs_plain [PROBLEMS]`, by default 32.
"""

import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from haloforge.data.problems import read_problems
from tests.perf.measuring import apart, number_format, spread

MODULE = "tests.perf.raft_vs_plain"
SAMPLES, CYCLES, KEEP_TOP = 4, 2, 0.5
SETTINGS = {
    "model": "smollm2-135m",
    "rollout.dtype": number_format(),
    "rollout.max_num_seqs": 64,
    "rollout.max_model_len": 768,
    "rollout.max_tokens": 256,
    "rollout.temperature": 0.7,
    "verify.cache": False,
    "train.dtype": {"bfloat16": "bf16", "float32": "fp32"}[number_format()],
    "train.epochs": 1,
    "train.batch_size": 8,
    "train.learning_rate": 3e-4,
    "train.max_length": 512,
    "train.lora.dropout": 0,
    "raft.cycles": CYCLES,
    "raft.samples_per_prompt": SAMPLES,
    "raft.reward_threshold": 0.5,
    "raft.keep_top_percent": KEEP_TOP,
}
STAGES = ("generate", "verify", "select", "train", "reload", "other")
FIELDS = {"problem_id", "prompt", "language", "starter_code"}


def write_problems(count: int, path: Path) -> None:
    """Bundled problems, from all over them, without tests."""
    chosen = spread(read_problems("starter"), count)
    path.write_text("".join(row.model_dump_json(include=FIELDS) + "\n" for row in chosen))


def ours(count: int, folder: Path) -> dict[str, Any]:
    """Seconds by stage, and units, of `raft` on an engine that is up."""
    from haloforge.config import load_settings
    from haloforge.model.adapter import read_info
    from haloforge.raft.cycle import raft
    from haloforge.report.progress import Report, Stage
    from haloforge.rollout.pool import EnginePool
    from haloforge.session import Session
    from haloforge.store.layout import STATISTICS
    from haloforge.store.shards import read_judged

    seconds: defaultdict[str, float] = defaultdict(float)

    class Clock(Report):
        """Times each stage."""

        @contextmanager
        def stage(self, name: str, total: int | None, unit: str) -> Iterator[Stage]:
            began = time.monotonic()
            with super().stage(name, total, unit) as stage:
                yield stage
            seconds["train" if name.startswith("train") else "generate"] += time.monotonic() - began

    class TimedSession(Session):
        """Times each swap."""

        def engines(self, policy: Any) -> EnginePool:
            began = time.monotonic()
            pool = super().engines(policy)
            seconds["reload"] += time.monotonic() - began
            return pool

    prompts = folder / "problems.jsonl"
    write_problems(count, prompts)
    arriving = time.monotonic()
    output = folder / "raft"
    with TimedSession(load_settings(None, {**SETTINGS, "raft.prompts": str(prompts)})) as session:
        session.report = Clock()
        policy = session.policy(None)
        session.engines(policy)
        seconds.clear()
        began = time.monotonic()
        raft(session, policy, output)
        total = time.monotonic() - began
    told = json.loads((output / STATISTICS).read_text())
    seconds["select"] = sum(entry["seconds"]["select"] for entry in told)
    seconds["other"] = total - sum(seconds.values())
    units: Counter[str] = Counter()
    for cycle in range(1, CYCLES + 1):
        training = read_info(output / f"cycle_{cycle}_final").training
        units["trained tokens"] += training["trained_tokens"]
        units["kept"] += training["rows"]
        for row in read_judged(output / f"cycle_{cycle}"):
            units["samples"] += 1
            units["tokens"] += row.sample["num_tokens"]
            units["compile"] += row.verdict["outcome"] == "compiled"
    first = max(entry["seconds"]["saved_to_first_token"] for entry in told[1:])
    start = began - arriving
    return {"seconds": seconds, "units": units, "start": start, "saved_to_first_token": first}


def reference(count: int, folder: Path) -> dict[str, Any]:
    """Seconds by stage, and units, of `plain_raft`."""
    from haloforge.config import load_settings
    from haloforge.model.bases import resolve_base
    from haloforge.raft.cycle import raft_sampling, raft_training
    from tests.perf.plain_raft import plain_raft

    prompts = folder / "problems.jsonl"
    write_problems(count, prompts)
    settings = load_settings(None, SETTINGS)
    problems, base = read_problems(str(prompts)), resolve_base("smollm2-135m").path
    sampling, training = raft_sampling(settings), raft_training(settings)
    began = time.monotonic()
    spent = plain_raft(base, problems, SAMPLES, CYCLES, sampling, training, KEEP_TOP, folder)
    spent.seconds["other"] = time.monotonic() - began - sum(spent.seconds.values())
    return {"seconds": spent.seconds, "units": spent.units, "start": 0.0}


def scaled(run: dict[str, Any], like: dict[str, Any]) -> dict[str, float]:
    """A run's seconds by stage, had it made and trained on as many tokens as another."""
    seconds = {stage: run["seconds"].get(stage, 0.0) for stage in STAGES}
    for stage, unit in (("generate", "tokens"), ("train", "trained tokens")):
        seconds[stage] *= like["units"][unit] / run["units"][unit]
    return seconds


def entry(runs: dict[str, list[dict[str, Any]]], problems: str) -> dict[str, Any]:
    """The entry of each side's better run, both at the work of ours."""
    mine = min(runs["ours"], key=lambda run: sum(run["seconds"].values()))
    sides = {
        "ours": mine["seconds"],
        "reference": min(
            (scaled(run, mine) for run in runs["reference"]), key=lambda each: sum(each.values())
        ),
    }
    totals = {side: sum(seconds.values()) for side, seconds in sides.items()}
    table = Table("stage", "ours, s", "reference, s")
    for stage in STAGES:
        table.add_row(stage, *(f"{seconds.get(stage, 0):.1f}" for seconds in sides.values()))
    table.add_row("all", *(f"{total:.1f}" for total in totals.values()))
    Console(stderr=True).print(table)
    with_start = totals["reference"] / (totals["ours"] + mine["start"])
    note = (
        f"SmolLM2-135M in {number_format()}, {problems} problems x {SAMPLES} samples, {CYCLES} "
        f"cycles, 256 tokens, {os.cpu_count()} cores; reference: transformers in batches of 64, "
        "g++ in a thread pool, Trainer with dynamic padding; its seconds of generation and "
        "training are scaled to our tokens; ours judges while it generates, so that `generate` "
        "holds both. Without the one-off start of Ray and engine; with those "
        f"{mine['start']:.0f} s the ratio is {with_start:.2f}. From the saved adapter to the first "
        f"token by it: {mine['saved_to_first_token']:.1f} s"
    )
    return {
        **{side: 3600 / total for side, total in totals.items()},
        "ratio": totals["reference"] / totals["ours"],
        "unit": "runs/h",
        "note": note,
        "stages": sides,
        "runs": runs,
    }


def main(count: str = "32") -> None:
    """Both sides twice, in turn; prints the entry."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
    for _ in range(2):
        for side, done in runs.items():
            done.append(json.loads(apart(MODULE, side, count)))
            print(f"  {side}: {done[-1]}", file=sys.stderr, flush=True)
    print(json.dumps(entry(runs, count)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours" | "reference" as side, count]:
            with tempfile.TemporaryDirectory() as folder:
                run = {"ours": ours, "reference": reference}[side](int(count), Path(folder))
            print(json.dumps(run))
        case arguments:
            main(*arguments)
