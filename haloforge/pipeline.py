"""The whole path as one job: measure the base, SFT, RAFT, measure both. One engine start."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from haloforge.benchmark.measure import benchmark
from haloforge.benchmark.results import Result
from haloforge.config import Settings
from haloforge.preflight import check_pipeline
from haloforge.raft.cycle import raft
from haloforge.report.summary import summarize
from haloforge.session import Session
from haloforge.sft import sft
from haloforge.store.clock import Clock
from haloforge.store.lock import hold
from haloforge.store.remote import run_folder
from haloforge.store.run import set_aside, write_atomic

SUMMARY = "summary.json"
_SECONDS = "seconds.json"
_STAGES = "benchmark base", "sft", "benchmark sft", "raft", "benchmark raft"


def pipeline(settings: Settings, fresh: bool = False) -> dict[str, Result]:
    """Runs all stages below `output` and returns the result of each measured model, by stage.

    A stage that has ended is not repeated. `summary.json` holds the measures and seconds,
    `report.html` shows them. Raises InputError where problems to train on are among those to
    measure on, where another process is at work in `output`, and what the stages raise.
    """
    check_pipeline(settings)
    output = run_folder(settings.output)
    if fresh and output.exists():
        set_aside(output)
    hold(output)
    config = settings.model_dump(mode="json")
    with Session(settings) as session, session.observer.run(output, "pipeline", config):
        clock = Clock(output / _SECONDS, partial(_stage, session))
        session.report.plan(_STAGES)
        base = session.policy(None)
        session.check_memory(base, "engines", "trainers")
        measured = output / "benchmark"
        results = {
            "base": clock.time(
                "benchmark base", lambda: benchmark(session, base, measured / "base")
            )
        }
        tuned = clock.time("sft", lambda: sft(session, base, output / "sft"))
        results["sft"] = clock.time(
            "benchmark sft", lambda: benchmark(session, tuned, measured / "sft")
        )
        final = clock.time("raft", lambda: raft(session, tuned, output / "raft"))
        results["raft"] = clock.time(
            "benchmark raft", lambda: benchmark(session, final, measured / "raft")
        )
        summary = {
            **summarize(results, settings.seed),
            "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
            "engine_starts": session.engine_starts,
            "engine_start_seconds": round(session.seconds_starting, 1),
        }
        write_atomic(output / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return results


@contextmanager
def _stage(session: Session, name: str) -> Iterator[None]:
    with session.report.under_way(name):
        session.observer.stage(name)
        yield
    session.observer.ended(name)
