"""What it costs to watch a run: a RAFT cycle without metrics and logs over one with them.

The cycle is sampling, verification, commits and selection of `tests.perf.simulation`, whose engines
and verifiers take none of the machine's time: so the driver, which does the watching, is what
bounds it. With them a run has Ray's metrics, its log, its activity, TensorBoard, and in each cycle
a report written anew beside it, as the cycle before has just ended; all by the defaults. Both kinds
alternate in one process; of each the best of ROUNDS counts. The note has the driver's CPU time too,
which other work on the machine changes less.
`python -m tests.perf.observe_overhead [SAMPLES]`, by default 10000 a cycle.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray

from haloforge import sampling
from haloforge.config import Settings, load_settings
from haloforge.observe.observer import Observer
from haloforge.placement import Fleet
from haloforge.raft.select import select
from haloforge.report.progress import Report
from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.settings import Sampling
from haloforge.schema import Problem
from tests.perf.simulation import ReplayEngine, delayed
from tests.sleeping_engine import pool_of

ROUNDS = 4
_PROBLEMS, _ENGINES, _SLOTS = 1000, 2, 2048


@contextmanager
def simulated() -> Iterator[EnginePool]:
    """Ray with engines and verifiers that only wait."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().print_on_execution_start = False
    engine = ray.remote(ReplayEngine).options(num_cpus=0, max_concurrency=10_000)
    patched: Any = sampling
    patched._prompts = lambda *_: [Prompt([1])] * _PROBLEMS
    patched.verify_stage = lambda rows, *_: delayed(rows, _SLOTS)
    yield pool_of([engine.remote() for _ in range(_ENGINES)], int(_SLOTS / _ENGINES / 1.5))
    ray.shutdown()


def cycle(pool: EnginePool, settings: Settings, samples: int, run: Path) -> tuple[float, float]:
    """Seconds of one, and of the driver's CPU in it."""
    problems = [Problem(problem_id=f"p{n}", prompt="?", language="cpp") for n in range(_PROBLEMS)]
    report = Report()
    observer = Observer(settings.observe, report)
    session: Any = SimpleNamespace(
        settings=settings,
        fleet=Fleet(1, 1, 0.1),
        report=report,
        observer=observer,
        engines=lambda _: pool,
    )
    observer.enter(run, "raft", settings.model_dump(mode="json"))
    observer.engines(pool)
    shape = Sampling(temperature=0.7, top_p=1.0, max_tokens=256, stop_at_fence=True)
    began, worked = time.monotonic(), time.process_time()
    with observer.phase("sample_and_verify", 1):
        observer.ended("cycle 0")  # whose report is written meanwhile
        sampling.sample_and_judge(
            session, pool.policy, problems, max(1, samples // _PROBLEMS), shape,
            "simulated", 1, run / "cycle_1", "simulated",
        )  # fmt: skip
    with observer.phase("select", 1):
        found = select(run, 1, problems, settings.raft, settings.verify, 0)
        observer.selected(found.summary(), asdict(found.health))
    seconds, worked = time.monotonic() - began, time.process_time() - worked
    observer.engines(None)
    observer.close()
    return seconds, worked


def main(samples: str = "10000") -> None:
    """Prints the entry."""
    given = {"raft.keep_top_percent": 0.5}
    kinds = {
        "without": load_settings(None, {**given, "observe.enabled": False}),
        "with": load_settings(None, given),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    worked: dict[str, list[float]] = {name: [] for name in kinds}
    with simulated() as pool, tempfile.TemporaryDirectory() as folder:
        cycle(pool, kinds["without"], 2 * _PROBLEMS, Path(folder, "warm-up"))
        for number in range(ROUNDS):
            for name in sorted(kinds, reverse=number % 2 == 0):
                run = Path(folder, f"{name}-{number}")
                took = cycle(pool, kinds[name], int(samples), run)
                seconds[name].append(took[0])
                worked[name].append(took[1])
                print(f"  {name} {took[0]:.2f} s, CPU {took[1]:.2f} s", file=sys.stderr, flush=True)
    ours, reference = min(seconds["with"]), min(seconds["without"])
    middle = statistics.median(seconds["without"]) / statistics.median(seconds["with"])
    cpu = statistics.median(worked["without"]) / statistics.median(worked["with"])
    told = {name: [round(each, 2) for each in all_of] for name, all_of in seconds.items()}
    note = (
        f"seconds of a cycle of {int(samples):,} samples, engines and verifiers simulated; the "
        f"ratio is without over with; of the medians {middle:.3f}, of the driver's CPU "
        f"{cpu:.3f}; rounds: {told}"
    )
    numbers = {"ours": ours, "reference": reference, "ratio": reference / ours}
    print(json.dumps({**numbers, "unit": "s", "note": note}))


if __name__ == "__main__":
    main(*sys.argv[1:])
