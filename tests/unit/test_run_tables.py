"""The tables that a training ends with."""

import json
import re
from pathlib import Path
from typing import Any

from haloforge.model.adapter import INFO_FILE, AdapterInfo
from haloforge.report.runs import cycles_table, raft_table, training_table

MEASURES = {"pass@1": {"mean": 0.0875, "low": 0.046, "high": 0.138, "problems": 40}}
TRAINED = {"rows": 1200, "dropped_rows": 0, "steps": 450, "loss_first": 0.9, "loss_last": 0.4}
TRAINED |= {"trained_tokens": 90_000, "seconds": 750.0, "restarts": 0}


def record(cycle: int, **changed: Any) -> dict[str, Any]:
    """Of 1,200 samples 200 were lost, 700 of the others compiled and 250 of those passed."""
    outcomes = {"passed": 250, "wrong_answer": 450, "compile_error": 280, "no_code": 20}
    return {
        "cycle": cycle,
        "selection": {
            "samples": 1200,
            "outcomes": {**outcomes, "infra_error": 200},
            "mean_reward": 0.4125,
            "kept": 120,
        },
        "training": TRAINED,
        "seconds": {"sample_and_verify": 900.2, "train": 100.0, "saved_to_first_token": 50.0},
        "failures": {"infra_errors": 200, "engine_restarts": 1, "trainer_restarts": 0},
        "held_out": {"measure": "pass@1", "problems": 40, "measures": MEASURES},
        **changed,
    }


def cells(table: str) -> list[list[str]]:
    return [[cell for cell in line.split("  ") if cell] for line in table.splitlines()]


def test_cycles_by_row(tmp_path: Path) -> None:
    none = {"infra_errors": 0, "engine_restarts": 0, "trainer_restarts": 0}
    path = tmp_path / "raft_statistics.json"
    path.write_text(json.dumps([record(1), record(2, held_out=None, failures=none)]))
    head, _, first, second, failures = raft_table(path).splitlines()
    assert [cell.strip() for cell in cells(head)[0]] == [
        *("cycle", "samples", "compile", "passed", "reward", "kept", "loss"),
        *("pass@1 held out", "seconds"),
    ]
    assert [cell.strip() for cell in cells(first)[0]] == [
        *("1", "1,200", "70.0%", "25.0%", "0.412", "120", "0.900 -> 0.400"),
        *("8.8% [4.6%, 13.8%]", "1,000"),
    ]
    assert [cell.strip() for cell in cells(second)[0]][-2:] == ["-", "1,000"]
    assert failures == (
        "cycle 1: failures of ours: 200 samples lost (infra_error), 1 restarts of engines"
    )


def test_problems_without_tests_and_without_held_out_ones() -> None:
    selection = {**record(1)["selection"], "outcomes": {"compiled": 6, "compile_error": 4}}
    table = cycles_table([record(1, selection=selection, held_out=None)])
    head, _, row, *_ = cells(table)
    assert [cell.strip() for cell in row][2:4] == ["60.0%", "-"]
    assert "held out" not in " ".join(head)


def test_a_cycle_in_which_nothing_was_judged() -> None:
    selection = {"samples": 5, "outcomes": {"infra_error": 5}, "mean_reward": 0.0, "kept": 0}
    row = cells(cycles_table([record(1, selection=selection)]))[2]
    assert [cell.strip() for cell in row][2:5] == ["-", "-", "-"]


def test_the_table_of_a_training(tmp_path: Path) -> None:
    def told(**changed: Any) -> dict[str, str]:
        fields = {"base": "b", "base_public_id": "b", "base_digest": "b", "chat_template": ""}
        info = AdapterInfo(**fields, stage="sft", parent="p", training={**TRAINED, **changed})
        (tmp_path / INFO_FILE).write_text(info.model_dump_json())
        rows = training_table(tmp_path).splitlines()[2:]
        return dict(re.split("  +", row) for row in rows)

    found = told()
    assert found["rows"] == "1,200" and found["steps"] == "450"
    assert found["loss"] == "0.900 -> 0.400"
    assert found["tokens/s"] == "120" and found["seconds"] == "750 (12 min 30 s)"
    assert "held-out loss" not in found and "failures of ours" not in found
    more = told(eval_loss=0.52, best_step=300, restarts=2, dropped_rows=7)
    assert more["held-out loss"] == "0.520 (step 300)"
    assert more["failures of ours"] == "2 restarts of trainers"
    assert more["rows left out"].startswith("7 ")
