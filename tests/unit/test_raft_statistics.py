"""The records of cycles, from what their folders hold."""

import json
from pathlib import Path
from typing import Any

from haloforge.model.adapter import INFO_FILE, AdapterInfo
from haloforge.raft.held_out import Score
from haloforge.raft.statistics import write_statistics
from haloforge.store.clock import Clock
from haloforge.store.layout import SECONDS, STATISTICS
from tests.results import passing

TRAINED = {"rows": 6, "dropped_rows": 1, "steps": 3, "loss_first": 0.9, "loss_last": 0.4}
TRAINED |= {"trained_tokens": 90, "seconds": 7.5, "restarts": 2}
SELECTION = {"samples": 10, "outcomes": {"passed": 6, "wrong_answer": 3, "infra_error": 1}}


def adapter(run: Path, cycle: int, **training: Any) -> None:
    """What a cycle leaves of its training, without the weights."""
    fields = {"base": "b", "base_public_id": "b", "base_digest": "b", "chat_template": ""}
    info = AdapterInfo(**fields, stage="raft", parent="before", training={**TRAINED, **training})
    folder = run / f"cycle_{cycle}_final"
    folder.mkdir(parents=True)
    (folder / INFO_FILE).write_text(info.model_dump_json())
    commits = run / f"cycle_{cycle}" / "commits"
    commits.mkdir(parents=True)
    told = {"shard": "000001.parquet", "rows": 10, "seconds": 5.0}
    (commits / "000001.json").write_text(json.dumps(told))


def test_a_cycle_s_record(tmp_path: Path) -> None:
    selection = {**SELECTION, "health": {"mean_tokens": 50.0}}
    adapter(tmp_path, 1, selection=selection, learning_rate=1e-4, plan={}, warnings=["few"])
    Clock(tmp_path / "cycle_1" / SECONDS).note("saved_to_first_token", 4.0)
    (tmp_path / "cycle_1" / "engine_restarts.json").write_text("3")
    write_statistics(tmp_path, 1, [Score(0, passing([1], 2)), Score(1, passing([2, 1], 2))])
    (found,) = json.loads((tmp_path / STATISTICS).read_text())
    assert (found["cycle"], found["policy"], found["adapter"]) == (1, "before", "cycle_1_final")
    assert (found["generated_tokens"], found["tokens_per_second"]) == (450, 90.0)
    assert found["programs_per_second"] == 1.8
    assert found["training"] == {name: TRAINED[name] for name in TRAINED if name != "restarts"}
    assert found["failures"] == {"infra_errors": 1, "engine_restarts": 3, "trainer_restarts": 2}
    assert found["seconds"] == {"saved_to_first_token": 4.0}
    measures = found["held_out"]["measures"]["pass@1"]
    assert measures["mean"] == 0.75 and measures["low"] <= 0.75 <= measures["high"]
    assert (found["learning_rate"], found["warnings"]) == (1e-4, ["few"])


def test_a_cycle_of_a_run_from_before(tmp_path: Path) -> None:
    """It has no record of health, rate or plan; the run can go on."""
    adapter(tmp_path, 1, selection=SELECTION)
    write_statistics(tmp_path, 1, [])
    (found,) = json.loads((tmp_path / STATISTICS).read_text())
    assert found["selection"] == SELECTION
    assert found["generated_tokens"] is None and found["held_out"] is None
