"""Whether a run has ended, goes on, or was stopped, and where."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haloforge.benchmark.results import RESULTS, Result
from haloforge.report.hostile import visible
from haloforge.report.page.files import Files, mapping, number
from haloforge.report.page.run import Cycle, Kind, Measured, Status
from haloforge.store.layout import (
    EVAL,
    FAILED,
    FINAL,
    LOGS,
    START_EVAL,
    STATE,
    STOPPED,
    TRAINING,
)
from haloforge.store.lock import LOCK, is_held

_MESSAGE_CHARS = 500
STAGES = ("base", "sft", "raft")
"""The models that a pipeline measures, in this order."""


def status_of(
    files: Files,
    folder: Path,
    kind: Kind,
    settings: Mapping[str, Any],
    cycles: Sequence[Cycle],
    start: Result | None,
    benchmarks: Sequence[Measured],
) -> Status:
    """By what is there, by what the run told last, and by the locks that a living process holds.
    On a file system without locks a run that goes on looks like one that was stopped."""
    if kind == "nothing":
        return Status("empty")
    left = _left(folder, kind, settings, cycles, start, benchmarks)
    if left is None:
        return Status("finished")
    told = mapping(files.record(folder / LOGS / STATE))
    if told.get("state") in (STOPPED, FAILED) and not _went_on(folder, number(told.get("at"))):
        return Status("stopped", left, visible(str(told.get("message") or ""))[:_MESSAGE_CHARS])
    locks = [folder / LOCK, *folder.glob(f"*/{LOCK}"), *folder.glob(f"*/*/{LOCK}")]
    held = any(is_held(path.parent) for path in locks)
    return Status("running" if held else "stopped", left)


def _went_on(folder: Path, at: float | None) -> bool:
    """Whether a process has taken the folder since then, and has it still."""
    lock = folder / LOCK
    return at is not None and is_held(folder) and lock.stat().st_mtime > at


def _left(
    folder: Path,
    kind: Kind,
    settings: Mapping[str, Any],
    cycles: Sequence[Cycle],
    start: Result | None,
    benchmarks: Sequence[Measured],
) -> str | None:
    """What is to be done next; None where all is done."""
    if kind == "benchmark":
        return None if benchmarks and all(each.result for each in benchmarks) else "benchmark"
    if kind == "sft":
        return _sft_left(folder)
    if kind == "raft":
        return _raft_left(folder, settings, cycles, start)
    ended = {each.name for each in benchmarks if each.result}
    for stage in STAGES:
        found = None
        if stage == "sft":
            found = _sft_left(folder / "sft")
        elif stage == "raft":
            found = _raft_left(folder / "raft", settings, cycles, start)
        if found or stage not in ended:
            return found or f"benchmark of {stage}"
    return None


def _sft_left(folder: Path) -> str | None:
    return None if (folder / FINAL).is_dir() else "SFT"


def _raft_left(
    folder: Path, settings: Mapping[str, Any], cycles: Sequence[Cycle], start: Result | None
) -> str | None:
    chosen = mapping(settings.get("raft"))
    scored = bool(chosen.get("eval_prompts"))
    if scored and not (folder / START_EVAL / RESULTS).is_file():
        return "RAFT, the score of its start"
    for cycle in cycles:
        adapter, name = folder / f"cycle_{cycle.number}_final", f"RAFT cycle {cycle.number}"
        if not adapter.is_dir():
            return f"{name}, {_step(folder, adapter, cycle)}"
        if scored and not (folder / f"cycle_{cycle.number}" / EVAL / RESULTS).is_file():
            return f"{name}, its score"
    last = cycles[-1].number if cycles else 0
    wanted = chosen.get("cycles")
    if isinstance(wanted, int) and last < wanted:
        patience = chosen.get("patience")
        if not isinstance(patience, int) or _since_best(cycles, start) < patience:
            return f"RAFT cycle {last + 1}"
    return None


def _step(folder: Path, adapter: Path, cycle: Cycle) -> str:
    if adapter.with_name(f"{adapter.name}{TRAINING}").is_dir():
        return "training"
    if (folder / f"cycle_{cycle.number}" / "trained.parquet").is_file():
        return "to be trained"
    return f"sampling and judging ({cycle.counts.samples:,} samples so far)"


def _since_best(cycles: Sequence[Cycle], start: Result | None) -> int:
    """How many cycles there were since the best score; of equal ones the first is the best."""
    results = {cycle.number: cycle.held_out for cycle in cycles}
    scores = {
        number: found.measures.get("pass@1") or found.measures["compile_rate"]
        for number, found in {0: start, **results}.items()
        if found and found.measures
    }
    if not scores:
        return 0
    best = max(scores, key=lambda number: (scores[number].mean, -number))
    return max(scores) - best
