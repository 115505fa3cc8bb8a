"""The whole path as one job: measure the base, SFT, RAFT, measure both. One engine start."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from haloforge.benchmark.measure import Result, benchmark, check_k
from haloforge.config import Settings
from haloforge.data.problems import read_problems
from haloforge.errors import InputError
from haloforge.model.adapter import installed_versions
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
    check_k(settings.benchmark)
    _refuse_overlap(settings)
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
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "engine_starts": session.engine_starts,
            "engine_start_seconds": round(session.seconds_starting, 1),
            "seed": settings.seed,
            "versions": installed_versions(),
        }
        write_atomic(output / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return results


def _refuse_overlap(settings: Settings) -> None:
    """No problem may be both trained on and measured on, nor two variants of one."""

    def groups(source: str) -> dict[str, str]:
        problems = read_problems(source, settings.language)
        return {problem.group or problem.problem_id: problem.problem_id for problem in problems}

    trained = groups(settings.raft.prompts)
    both = sorted(groups(settings.benchmark.prompts).keys() & trained.keys())
    if both:
        raise InputError(
            f"problem '{trained[both[0]]}' is in raft.prompts and in benchmark.prompts"
            f" ({len(both)} such in all): a model must not be measured on what it trained on"
        )
