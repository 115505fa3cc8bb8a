"""What a run of training came to, as text: RAFT by cycle, and a single training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haloforge.benchmark.passk import Estimate
from haloforge.model.adapter import read_info
from haloforge.report.stages import duration, rate_text
from haloforge.report.tables import columns
from haloforge.schema import Outcome

_NO_PROGRAM = (Outcome.NO_CODE, Outcome.COMPILE_ERROR)
# Outcomes of samples that were run on tests; a run without any of them had no tests.
_TESTED = (Outcome.PASSED, Outcome.WRONG_ANSWER)
_PARTS = ("sample_and_verify", "select", "train", "evaluate")
_NONE = "-"


def raft_table(statistics: Path) -> str:
    """`cycles_table` of the records in this file."""
    return cycles_table(json.loads(statistics.read_text()))


def cycles_table(records: Sequence[Mapping[str, Any]]) -> str:
    """One row a cycle of `raft_statistics.json`; below it failures of ours, where there were any.

    Rates are shares of the samples that were judged; `passed` is left open where none ran on tests.
    """
    measure = next((r["held_out"]["measure"] for r in records if r["held_out"]), None)
    head = ["cycle", "samples", "compile", "passed", "reward", "kept", "loss"]
    head += [f"{measure} held out"] if measure else []
    tested = any(r["selection"]["outcomes"].get(each) for r in records for each in _TESTED)
    rows = [_row(record, tested, measure is not None) for record in records]
    lines = columns([[*head, "seconds"], *rows])
    lines += [line for record in records if (line := _failures(record))]
    return "\n".join(lines)


def _row(record: Mapping[str, Any], tested: bool, scored: bool) -> list[str]:
    selection, training = record["selection"], record["training"]
    outcomes = selection["outcomes"]
    judged = sum(outcomes.values()) - outcomes.get(Outcome.INFRA_ERROR, 0)
    compiled = judged - sum(outcomes.get(each, 0) for each in _NO_PROGRAM)
    reward = selection.get("mean_reward")
    row = [
        str(record["cycle"]),
        f"{selection['samples']:,}",
        _share(compiled, judged),
        _share(outcomes.get(Outcome.PASSED, 0), judged) if tested else _NONE,
        _NONE if reward is None or not judged else f"{reward:.3f}",
        f"{selection['kept']:,}" if "kept" in selection else _NONE,
        _losses(training),
    ]
    if scored:
        found = record["held_out"]
        row.append(str(Estimate(**found["measures"][found["measure"]])) if found else _NONE)
    spent = [record["seconds"][part] for part in _PARTS if part in record["seconds"]]
    return [*row, f"{sum(spent):,.0f}" if spent else _NONE]


def _failures(record: Mapping[str, Any]) -> str:
    """What failed of ours in a cycle, in a line; nothing where nothing did."""
    named = (
        ("infra_errors", "samples lost (infra_error)"),
        ("engine_restarts", "restarts of engines"),
        ("trainer_restarts", "restarts of trainers"),
    )
    found = [(record["failures"][name], told) for name, told in named]
    told = ", ".join(f"{number} {what}" for number, what in found if number)
    return f"cycle {record['cycle']}: failures of ours: {told}" if told else ""


def training_table(folder: Path) -> str:
    """What the training that ended with the adapter or model in `folder` did."""
    training = read_info(folder).training
    seconds, tokens = training["seconds"], training["trained_tokens"]
    rows = [
        ["rows", f"{training['rows']:,}"],
        ["steps", f"{training['steps']:,}"],
        ["loss", _losses(training)],
    ]
    if training.get("eval_loss") is not None:
        best = training.get("best_step")
        at = f" (step {best:,})" if best is not None else ""
        rows.append(["held-out loss", f"{training['eval_loss']:.3f}{at}"])
    rows.append(["trained tokens", f"{tokens:,}"])
    if seconds:
        rows.append(["tokens/s", rate_text(tokens / seconds)])
    rows.append(["seconds", f"{seconds:,.0f} ({duration(seconds)})"])
    if training["dropped_rows"]:
        rows.insert(1, ["rows left out", f"{training['dropped_rows']:,} (no answer token fits)"])
    if training["restarts"]:
        rows.append(["failures of ours", f"{training['restarts']} restarts of trainers"])
    return "\n".join(columns([["training", ""], *rows]))


def _losses(training: Mapping[str, Any]) -> str:
    first, last = training["loss_first"], training["loss_last"]
    return _NONE if first is None or last is None else f"{first:.3f} -> {last:.3f}"


def _share(number: int, whole: int) -> str:
    return f"{number / whole:.1%}" if whole else _NONE
