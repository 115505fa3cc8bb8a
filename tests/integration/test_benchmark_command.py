"""`benchmark run` by its command: several models on one engine; killed at work, and run again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters import random_adapter
from tests.processes import family, living, names, wait_until
from tests.runs import printing_problems, sample_ids

PROBLEMS = 24
OPTIONS = (
    "--k 1,2 --set rollout.engine=transformers --set ray.num_cpus=2 --set benchmark.resamples=100 "
    "--set verify.compile_wall_s=60"
)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return printing_problems(tmp_path / "problems.jsonl", PROBLEMS)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "haloforge", "benchmark", *map(str, arguments), *OPTIONS.split()]


def files(folder: Path) -> dict[str, bytes]:
    """All that is committed there."""
    return {str(path): path.read_bytes() for path in folder.rglob("commits/*.json")} | {
        str(path): path.read_bytes() for path in folder.rglob("*.parquet")
    }


def test_three_adapters_of_one_base_need_one_start(
    tiny_model: Path, tmp_path: Path, problems: Path
) -> None:
    adapters = [random_adapter(tiny_model, tmp_path / f"adapter_{n}", n) for n in range(3)]
    models = [part for adapter in adapters for part in ("--model", adapter)]
    asked = ["--prompts", problems, "--samples", 2, "--max-tokens", 8, "--limit", 3]
    done = subprocess.run(
        command("run", *models, *asked, "--output", tmp_path / "out"),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("engines: starting") == 1
    results = [
        json.loads((tmp_path / "out" / adapter.name / "results.json").read_text())
        for adapter in adapters
    ]
    assert len({result["policy"] for result in results}) == 3
    assert len({result["samples_digest"] for result in results}) == 3, "one answered for all"
    assert "adapter_1 - adapter_0" in done.stdout
    look = [sys.executable, "-m", "haloforge", "samples", str(tmp_path / "out"), "--json"]
    shown = subprocess.run(look, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in shown.splitlines()]
    assert {row["source"] for row in rows} == {adapter.name for adapter in adapters}
    assert len(rows) == len(adapters) * 3 * 2
    for row in rows:
        assert row["prompt"].startswith(f"Print {row['problem_id'].removeprefix('p')}.")


@pytest.mark.slow
def test_killed_at_work_it_goes_on_and_a_finished_one_stays(
    tiny_model: Path, tmp_path: Path, problems: Path
) -> None:
    out, samples = tmp_path / "out", 20
    asked = ["--prompts", problems, "--samples", samples, "--max-tokens", 64, "--output", out]
    run = command("run", "--model", tiny_model, *asked)
    driver = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: any(out.glob("commits/*.json")), 300)
    processes = family(driver.pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert wait_until(lambda: not living(processes), 30), names(processes)
    assert not (out / "results.json").exists(), "it was not at work any more"
    committed = files(out)

    done = subprocess.run(run, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    after = files(out)
    assert {path: after[path] for path in committed} == committed
    ids = sample_ids(out)
    assert len(ids) == PROBLEMS * samples
    assert set(ids.values()) == {1}

    told = (out / "results.json").read_bytes()
    again = subprocess.run([*run, "--json"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "engines: starting" not in again.stderr
    [model] = json.loads(again.stdout)["models"].values()
    assert model["measures"] == json.loads(told)["measures"]
    assert model["samples_digest"] in told.decode() and "per_problem" not in model
    assert (out / "results.json").read_bytes() == told
