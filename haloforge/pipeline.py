"""The whole path as one job: measure the base, SFT, RAFT, measure both. One engine start."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from haloforge.benchmark.measure import benchmark
from haloforge.benchmark.results import Result
from haloforge.config import Settings
from haloforge.errors import InputError
from haloforge.preflight import check_pipeline
from haloforge.raft.cycle import raft
from haloforge.report.page import write_page
from haloforge.report.summary import summarize
from haloforge.session import Session
from haloforge.sft import sft
from haloforge.store.run import set_aside, write_atomic

SUMMARY = "summary.json"
PAGE = "report.html"
_SECONDS = "seconds.json"
_T = TypeVar("_T")


def pipeline(settings: Settings, fresh: bool = False) -> dict[str, Result]:
    """Runs all stages below `output` and returns the result of each measured model, by stage.

    A stage that has ended is not repeated. `summary.json` holds the measures and seconds,
    `report.html` shows them. Raises InputError where problems to train on are among those to
    measure on, and what the stages raise.
    """
    check_pipeline(settings)
    output = Path(settings.output)
    if fresh and output.exists():
        set_aside(output)
    clock = _Clock(output / _SECONDS)
    with Session(settings) as session:
        session.require_room_to_train()
        base = session.policy(None)
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
    write_page(output / PAGE, output, results, clock.seconds)
    return results


class _Clock:
    """Seconds by stage, over all the sittings that a run took."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    def time(self, stage: str, run: Callable[[], _T]) -> _T:
        """Runs the stage and adds what it took, also where it was stopped; not where refused."""
        began, refused = time.monotonic(), False
        try:
            return run()
        except InputError:
            refused = True
            raise
        finally:
            if not refused:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began
                write_atomic(self._path, json.dumps(self.seconds) + "\n")
