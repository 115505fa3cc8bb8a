"""RAFT's loop with a million samples, by simulation: what bounds it, and what its memory does.

Two parts are replaced, and named as what they are: `ReplayEngine` gives recorded completions after
the time that a GPU's engine would take for so many tokens, and `DelayVerifier` gives recorded
verdicts after the time that the slowest of a group took. Both are asynchronous, hundreds of slots
in a few actors.
All between is the real thing: Ray Data, the proxies, groups, shards, commits, selection. Nothing is
trained.

    python -m tests.perf.simulation record RUN    # of a real run's folder of samples, once
    python -m tests.perf.simulation slots         # throughput over slots
    python -m tests.perf.simulation samples       # memory and seconds from 10,000 to 1,000,000
    python -m tests.perf.simulation engines       # throughput over engines, each with its proxy
    python -m tests.perf.simulation pressure      # verifiers with a hundredth of the engines' slots

Each prints a table.
"""

import asyncio
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from haloforge import sampling
from haloforge.config import load_settings
from haloforge.groups import judged_group, samples_of
from haloforge.model.policy import Policy
from haloforge.placement import Fleet
from haloforge.raft.select import select
from haloforge.report.progress import Report
from haloforge.rollout.engine import Prompt
from haloforge.rollout.settings import Sampling
from haloforge.schema import Problem
from haloforge.store.shards import read_judged
from tests.sleeping_engine import SleepingEngine

RECORDED = Path(__file__).with_name("recorded.parquet")
_TOKENS_PER_S = 50.0
"""Of one sequence among many, as an engine on a GPU writes them."""
_PROBLEMS = 1000
_ENGINES = _VERIFIERS = 2


class ReplayEngine(SleepingEngine):
    """Stands for an engine: the next recorded completion, after as long as its tokens take."""

    capacity = 256

    def __init__(self) -> None:
        super().__init__()
        rows = pq.read_table(RECORDED).to_pylist()
        self._rows = itertools.cycle(rows)

    async def generate(self, prompt: Prompt, sampling: Sampling, policy: Policy) -> dict[str, Any]:
        row = next(self._rows)
        self._in_flight += 1
        await asyncio.sleep(row["num_tokens"] / _TOKENS_PER_S)
        self._in_flight -= 1
        self._finished += 1
        self._request_s += row["num_tokens"] / _TOKENS_PER_S
        told = ("completion", "num_tokens", "finish_reason")
        return {**{name: row[name] for name in told}, "logprob_sum": None, "policy": policy.digest}

    async def ready(self) -> None: ...


class DelayVerifier:
    """Stands for a verifier: a completion's recorded verdict, after as long as it took."""

    def __init__(self) -> None:
        rows = pq.read_table(RECORDED).to_pylist()
        self._verdicts = {row["completion"]: json.loads(row["verdict"]) for row in rows}
        self._actor, self._busy_s = ray.get_runtime_context().get_actor_id(), 0.0

    async def __call__(self, block: pa.Table) -> AsyncIterator[pa.Table]:
        samples = samples_of(block)
        verdicts = [self._verdict(row) for row in samples.to_pylist()]
        seconds = max(each["compile_ms"] + each["run_ms"] for each in verdicts) / 1000
        await asyncio.sleep(seconds)
        self._busy_s += seconds
        told = {"actor": self._actor, "process": os.getpid(), "busy_s": self._busy_s}
        yield judged_group(samples, verdicts, {**told, "cache_hits": 0})

    def _verdict(self, sample: dict[str, Any]) -> dict[str, Any]:
        names = {name: sample[name] for name in ("sample_id", "problem_id")}
        return {**self._verdicts[sample["completion"]], **names}


def record(run: Path) -> None:
    """Keeps completions, tokens and verdicts of a real run for `ReplayEngine` and its like."""
    rows = [
        {name: row.sample[name] for name in ("completion", "num_tokens", "finish_reason")}
        | {"verdict": json.dumps(row.verdict)}
        for row in itertools.islice(read_judged(run), 500)
    ]
    pq.write_table(pa.Table.from_pylist(rows), RECORDED, compression="zstd")
    print(f"{len(rows)} samples of {run} kept in {RECORDED.name}")


def delayed(samples: "ray.data.Dataset", slots: int) -> "ray.data.Dataset":
    """In the place of `verify_stage`."""
    return samples.map_batches(
        DelayVerifier,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0.01,
        compute=ray.data.ActorPoolStrategy(
            size=_VERIFIERS, max_tasks_in_flight_per_actor=max(1, slots // _VERIFIERS)
        ),
        max_concurrency=max(1, slots // _VERIFIERS),
    )


def simulate(samples: int, slots: int, verifying: int, engines: int = _ENGINES) -> dict[str, float]:
    """One cycle of so many samples, `slots` of them under way in engines and `verifying` groups in
    verifiers: samples/s of sampling, judging and committing together, seconds of selection, and the
    driver's memory in MiB, at its most while samples flow and before."""
    from tests.observing import unobserved
    from tests.sleeping_engine import pool_of

    settings = load_settings(None, {"raft.keep_top_percent": 0.5})
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().print_on_execution_start = False
    engine = ray.remote(ReplayEngine).options(num_cpus=0, max_concurrency=10_000)
    pool = pool_of([engine.remote() for _ in range(engines)], max(1, int(slots / engines / 1.5)))
    problems = [Problem(problem_id=f"p{n}", prompt="?", language="cpp") for n in range(_PROBLEMS)]
    session: Any = SimpleNamespace(
        settings=settings,
        fleet=Fleet(1, 1, 0.1),
        report=Report(),
        observer=unobserved(),
        engines=lambda _: pool,
    )
    patched: Any = sampling
    patched._prompts = lambda *_: [Prompt([1])] * len(problems)
    patched.verify_stage = lambda rows, *_: delayed(rows, verifying)
    shape = Sampling(temperature=0.7, top_p=1.0, max_tokens=256, stop_at_fence=True)
    samples -= samples % len(problems)
    driver = psutil.Process()
    with tempfile.TemporaryDirectory() as folder, _Peak(driver) as peak:
        run = Path(folder)
        before, began = driver.memory_info().rss, time.monotonic()
        sampling.sample_and_judge(
            session, pool.policy, problems, samples // len(problems), shape,
            "simulated", 1, run / "cycle_1", "simulated",
        )  # fmt: skip
        seconds = time.monotonic() - began
        began = time.monotonic()
        task = ray.remote(num_cpus=0)(_select)
        kept, selecting_mb = ray.get(task.remote(run, problems, settings))
        selected = time.monotonic() - began
    ray.shutdown()
    return {
        "samples": samples,
        "slots": slots,
        "verifying": verifying,
        "engines": engines,
        "samples/s": round(samples / seconds, 1),
        "seconds": round(seconds, 1),
        "selection s": round(selected, 1),
        "selection MiB": selecting_mb,
        "kept": kept,
        "driver MiB before": before >> 20,
        "driver MiB at most": peak.bytes >> 20,
    }


def _select(run: Path, problems: list[Problem], settings: Any) -> tuple[int, int]:
    found = select(run, 1, problems, settings.raft, settings.verify, 0)
    return found.kept, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


class _Peak:
    """The most memory that a process holds while the block runs."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self.bytes = process, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self.bytes = max(self.bytes, self._process.memory_info().rss)


def table(rows: list[tuple[int, ...]]) -> None:
    """Each simulation in a process of its own, and what it came to."""
    for number, row in enumerate(rows):
        command = [sys.executable, "-m", "tests.perf.simulation", "one", *map(str, row)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        if not number:
            print("\t".join(found), flush=True)
        print("\t".join(map(str, found.values())), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", run]:
            record(Path(run))
        case ["one", *numbers]:
            print(json.dumps(simulate(*map(int, numbers))))
        case ["slots"]:
            table([(20 * slots, slots, slots) for slots in (256, 512, 1024, 2048, 4096)])
        case ["samples"]:
            table([(samples, 2048, 2048) for samples in (10_000, 100_000, 1_000_000)])
        case ["engines"]:
            table([(40_000, 2048, 2048, engines) for engines in (2, 8, 32)])
        case ["pressure"]:
            table([(samples, 2048, 20) for samples in (2_000, 20_000)])
        case _:
            print(__doc__, os.linesep)
            sys.exit(2)
