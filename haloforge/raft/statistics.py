"""`raft_statistics.json`: what each cycle did, a record a cycle, from what its folders hold."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from haloforge.model.adapter import read_info
from haloforge.raft.held_out import Score
from haloforge.sampling import engine_restarts
from haloforge.store.clock import Clock
from haloforge.store.layout import SECONDS, STATISTICS
from haloforge.store.run import write_atomic
from haloforge.store.shards import working_seconds

_TRAINING = (
    *("rows", "dropped_rows", "steps", "loss_first", "loss_last", "trained_tokens", "seconds"),
)


def write_statistics(run: Path, cycles: int, scores: Sequence[Score]) -> None:
    """Writes the records of the first `cycles` cycles of the run in the folder `run`."""
    by_cycle = {score.cycle: score for score in scores}
    records = [record(run, cycle, by_cycle.get(cycle)) for cycle in range(1, cycles + 1)]
    write_atomic(run / STATISTICS, json.dumps(records, indent=2) + "\n")


def record(run: Path, cycle: int, score: Score | None) -> dict[str, Any]:
    """One cycle: README.md explains the fields. Seconds are over all sittings."""
    folder, adapter = run / f"cycle_{cycle}", run / f"cycle_{cycle}_final"
    info = read_info(adapter)
    told = info.training
    selection = told["selection"]
    judged = selection["samples"] - selection["outcomes"].get("infra_error", 0)
    health = selection.get("health")  # with which runs of an earlier version did not begin
    tokens = round(judged * health["mean_tokens"]) if health else None
    worked, seconds = working_seconds(folder), Clock(folder / SECONDS).seconds
    return {
        "cycle": cycle,
        "policy": info.parent,
        "adapter": adapter.name,
        "learning_rate": told.get("learning_rate"),
        "plan": told.get("plan"),
        "selection": selection,
        "generated_tokens": tokens,
        "tokens_per_second": _rate(tokens, worked),
        "programs_per_second": _rate(judged, worked),
        "training": {name: told[name] for name in _TRAINING},
        "seconds": {name: round(spent, 2) for name, spent in seconds.items()},
        "failures": {
            "infra_errors": selection["outcomes"].get("infra_error", 0),
            "engine_restarts": engine_restarts(folder),
            "trainer_restarts": told["restarts"],
        },
        "held_out": _scored(score),
        "warnings": told.get("warnings", []),
    }


def _scored(score: Score | None) -> dict[str, Any] | None:
    if score is None:
        return None
    measures = {name: asdict(found) for name, found in score.result.measures.items()}
    return {"measure": score.measure, "problems": score.result.problems, "measures": measures}


def _rate(number: float | None, seconds: float) -> float | None:
    return round(number / seconds, 2) if number is not None and seconds else None
