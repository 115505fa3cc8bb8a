"""A run that fails says where its log is, and the log says what happened."""

import json
from pathlib import Path

from tests.integration.test_command_errors import GOOD, halo_forge
from tests.observing import lines_of


def test_a_run_that_fails_says_where_its_log_is(tmp_path: Path) -> None:
    """It fails after Ray was started and before engines are: its problem leaves no room."""
    (tmp_path / "p.jsonl").write_text(json.dumps({**GOOD, "language": "python"}) + "\n")
    room = ("--set", "rollout.max_model_len=128", "--set", "rollout.max_tokens=127")
    arguments = ("raft", "train", "--prompts", "p.jsonl", "--output", "runs/r", *room)
    done = halo_forge(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    (at,) = (number for number, line in enumerate(lines) if "halo-forge: error:" in line)
    assert "exceed rollout.max_model_len=128" in lines[at]
    log = tmp_path / "runs" / "r" / "logs" / "raft.jsonl"
    assert lines[at + 1 :] == [f"log: {log}"], "nothing is said again, and Ray is not at fault"
    told = lines_of(log)
    assert any("Ray and engine logs: " in line["message"] for line in told)
    (error,) = (line for line in told if line["level"] == "error")
    assert (error["stage"], error["cycle"]) == ("raft", 1)
    assert "exceed rollout.max_model_len=128" in error["message"]
    assert "in sample_and_judge" in error["message"], "the traceback is there"
    assert (tmp_path / "runs" / "r" / "logs" / "activity.jsonl").exists()
