"""`halo-forge data generate` as a user runs it: the LLM is a script, the verifier is ours."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from tests.processes import wait_until
from tests.scripted_llm import ScriptedLLM, exercise
from tests.unit.test_generate_topics import OWN

COUNT = 12
WRONG = "print(sum(map(int, input().split())) + 1)"


def sometimes_wrong(words: str) -> str:
    """Every exercise at level hard has a solution that its tests refuse."""
    text = exercise(words)
    right = "print(sum(map(int, input().split())))"
    return text.replace(right, WRONG) if "difficulty: hard" in words else text


def command(folder: Path, url: str) -> list[str]:
    words = ["--topic", "sums.yaml", "--backend", url, "--model", "m", "--output", "out.jsonl"]
    flags = ["--count", str(COUNT), "--in-flight", "2"]
    (folder / "sums.yaml").write_text(yaml.safe_dump(OWN))
    return [sys.executable, "-m", "haloforge", "data", "generate", *words, *flags]


def test_only_what_the_verifier_accepts_is_kept(tmp_path: Path) -> None:
    llm = ScriptedLLM(write=sometimes_wrong, seconds=0.2)
    with llm.serving():
        started = subprocess.Popen(command(tmp_path, llm.url), cwd=tmp_path)
        assert wait_until(lambda: sum(llm.answered.values()) >= COUNT // 2, 120)
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
        done = subprocess.run(
            command(tmp_path, llm.url), cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        assert len(llm.sent) == COUNT
        assert sum(llm.sent.values()) <= COUNT + 2  # those that were under way
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    bad = (tmp_path / "out.rejected.jsonl").read_text().splitlines()
    assert {row["difficulty"] for row in rows} == {"easy"} and len(rows) == COUNT // 2
    reasons = [json.loads(line)["reasons"][0] for line in bad]
    assert {reason["fault"] for reason in reasons} == {"reference"} and len(bad) == COUNT // 2
    assert all("wrong_answer" in reason["why"] for reason in reasons)
    assert f"out.jsonl: {COUNT // 2} conversations of {COUNT} answers" in done.stdout
