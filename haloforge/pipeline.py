"""The whole path as one job: measure the base, SFT, RAFT, measure both. One engine start."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from haloforge.benchmark.compare import differences
from haloforge.benchmark.measure import Result, benchmark
from haloforge.config import Settings
from haloforge.model.adapter import installed_versions
from haloforge.preflight import check_pipeline
from haloforge.raft.cycle import raft
from haloforge.session import Session
from haloforge.sft import sft
from haloforge.store.run import write_atomic

SUMMARY = "summary.json"
_T = TypeVar("_T")


def pipeline(settings: Settings, fresh: bool = False) -> dict[str, Result]:
    """Runs all stages below `output` and returns the result of each measured model, by stage.

    A stage that has ended is not repeated; `summary.json` holds the measures and seconds. Raises
    InputError where problems to train on are among those to measure on, and what the stages raise.
    """
    check_pipeline(settings)
    output = Path(settings.output)
    seconds: dict[str, float] = {}
    results: dict[str, Result] = {}

    def timed(name: str, stage: Callable[[], _T]) -> _T:
        began = time.monotonic()
        done = stage()
        seconds[name] = time.monotonic() - began
        return done

    with Session(settings) as session:
        base = session.policy(None)
        measured = output / "benchmark"
        results["base"] = timed(
            "benchmark base", lambda: benchmark(session, base, measured / "base", fresh)
        )
        tuned = timed("sft", lambda: sft(session, base, output / "sft", fresh))
        results["sft"] = timed(
            "benchmark sft", lambda: benchmark(session, tuned, measured / "sft", fresh)
        )
        final = timed("raft", lambda: raft(session, tuned, output / "raft", fresh))
        results["raft"] = timed(
            "benchmark raft", lambda: benchmark(session, final, measured / "raft", fresh)
        )
        summary = {
            **{name: {m: asdict(e) for m, e in r.measures.items()} for name, r in results.items()},
            **{
                f"{later}_minus_{earlier}": {
                    measure: asdict(difference)
                    for measure, difference in differences(results[later], results[earlier]).items()
                }
                for earlier, later in combinations(results, 2)
            },
            "trivial_rate": {name: r.shares["trivial"] for name, r in results.items()},
            "shares": {name: r.shares for name, r in results.items()},
            "samples_digest": {name: r.samples_digest for name, r in results.items()},
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "engine_starts": session.engine_starts,
            "engine_start_seconds": round(session.seconds_starting, 1),
            "seed": settings.seed,
            "versions": installed_versions(),
        }
        write_atomic(output / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return results
