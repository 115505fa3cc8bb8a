"""The whole path at toy size through the command line, and again with a kill in the middle."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.processes import family, living, names, wait_until
from tests.runs import sample_ids


def problem(number: int) -> dict[str, object]:
    return {
        "problem_id": f"toy/{number}",
        "prompt": f"Write a Python program that prints the number {number}. Nothing else.",
        "tests": [{"stdin": "", "stdout": f"{number}\n"}],
        "language": "python",
    }


def toy(folder: Path) -> list[str]:
    """Writes a toy run's data and settings to `folder`; returns the command that runs it."""

    def jsonl(name: str, rows: list[dict[str, object]]) -> str:
        path = folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    answers: list[dict[str, object]] = [
        {
            "messages": [
                {"role": "user", "content": problem(n)["prompt"]},
                {"role": "assistant", "content": f"```python\nprint({n})\n```"},
            ]
        }
        for n in range(20, 28)
    ]
    settings = {
        "model": "smollm2-135m",
        "output": str(folder / "run"),
        "rollout": {"max_tokens": 64, "max_model_len": 256, "kv_cache_gb": 0.25},
        "train": {"epochs": 1, "max_length": 256, "learning_rate": 1e-4, "workers": 2},
        "verify": {"cache": False},
        "sft": {"data": jsonl("sft.jsonl", answers)},
        "raft": {
            "prompts": jsonl("train.jsonl", [problem(n) for n in range(3)]),
            "cycles": 1,
            "samples_per_prompt": 4,
        },
        "benchmark": {
            "prompts": jsonl("test.jsonl", [problem(n) for n in range(10, 13)]),
            "samples": 2,
            "k": [1, 2],
        },
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "haloforge", "pipeline", "--config", str(folder / "toy.yaml")]


def digests(run: Path) -> dict[str, str]:
    """Of every committed shard and every finished adapter."""
    files = [*run.rglob("*.parquet"), *run.rglob("adapter_model.safetensors")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_finished(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for stage in ("base", "sft", "raft"):
        assert set(summary[stage]) >= {"compile_rate", "pass@1", "pass@2"}
        for estimate in summary[stage].values():
            assert 0 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1
    # 3 problems x 2 samples measured three times, 3 x 4 for one cycle; each committed once.
    ids = sample_ids(run)
    assert len(ids) == 3 * 3 * 2 + 3 * 4
    assert set(ids.values()) == {1}
    base = json.loads((run / "sft" / "final_model" / "haloforge.json").read_text())
    final = json.loads((run / "raft" / "cycle_1_final" / "haloforge.json").read_text())
    assert final["base_digest"] == base["base_digest"]
    assert final["training"]["selection"]["samples"] == 12
    config = json.loads((run / "raft" / "cycle_1_final" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    card = (run / "raft" / "cycle_1_final" / "README.md").read_text()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert "pass@1" in card
    assert str(Path.home()) not in card


def test_the_whole_path(tmp_path: Path) -> None:
    command = toy(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    check_finished(run)
    assert json.loads((run / "summary.json").read_text())["engine_starts"] == 1
    assert "pass@1" in done.stdout
    assert "Ray dashboard: http://127.0.0.1" in done.stderr
    noise = ("WARNING", "INFO", "Traceback", "core_worker", "(pid=", "DeepSpeed")
    assert not [line for line in done.stderr.splitlines() if any(word in line for word in noise)]

    before = digests(run)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "engines: starting" not in again.stderr
    assert digests(run) == before
    assert done.stdout == again.stdout


@pytest.mark.slow
def test_killed_half_way_it_goes_on(tmp_path: Path) -> None:
    command = toy(tmp_path)
    run = tmp_path / "run"
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    # The base is measured and SFT is done; measuring the SFT model or RAFT is under way.
    assert wait_until((run / "benchmark" / "sft" / "run.json").exists, 600)
    assert driver.poll() is None
    processes = family(driver.pid)
    assert "ray::EngineActor" in names(processes)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert wait_until(lambda: not living(processes), 30), names(processes)
    assert not (run / "summary.json").exists()
    committed = digests(run)
    assert any("adapter_model" in path for path in committed)

    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    check_finished(run)
    after = digests(run)
    assert {path: after[path] for path in committed} == committed
