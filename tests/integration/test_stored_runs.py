"""A run in object storage, killed at work and taken up on a machine that has no copy of it."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from haloforge.store.cache import cache_folder
from haloforge.store.remote import fetch
from tests.integration.test_benchmark_command import PROBLEMS
from tests.integration.test_benchmark_command import command as benchmark
from tests.integration.test_pipeline import check_finished, toy
from tests.object_storage import BUCKET, environment, s3_server
from tests.processes import family, living, names, wait_until
from tests.runs import printing_problems, sample_ids

RUN = f"s3://{BUCKET}/toy"


def stored(store: pafs.FileSystem) -> dict[str, bytes]:
    """The committed shards and finished adapters of the run, by name."""
    found = store.get_file_info(pafs.FileSelector(f"{BUCKET}/toy", recursive=True))
    wanted = (".parquet", "adapter_model.safetensors")
    return {
        each.path: store.open_input_stream(each.path).read()
        for each in found
        if each.path.endswith(wanted) and "trained" not in each.path
    }


@pytest.mark.slow
def test_killed_and_taken_up_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "bases").symlink_to(cache_folder() / "bases")  # converted once a machine
    with s3_server(tmp_path / "s3.log") as address:
        for name, value in {**environment(address), "HALOFORGE_CACHE": str(cache)}.items():
            monkeypatch.setenv(name, value)
        store, _ = pafs.FileSystem.from_uri(f"s3://{BUCKET}")
        command = [*toy(tmp_path), "--output", RUN]
        for stage, begun in (
            ("benchmark/base", "commits/"),
            ("sft", "final_model/haloforge.json"),
            ("raft", "cycle_1/commits/"),
        ):
            log = (tmp_path / f"{stage.replace('/', '-')}.log").open("w")
            running = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)

            selector = pafs.FileSelector(
                f"{BUCKET}/toy/{stage}", recursive=True, allow_not_found=True
            )
            deadline = time.monotonic() + 400
            while running.poll() is None and time.monotonic() < deadline:
                if any(begun in each.path for each in store.get_file_info(selector)):
                    break
                time.sleep(0.2)
            assert running.poll() is None, Path(log.name).read_text()
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            shutil.rmtree(cache / "runs")  # as on another machine
        before = stored(store)
        assert before
        done = subprocess.run(command, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        after = stored(store)
        assert {name: after.get(name) for name in before} == before
        got = fetch(RUN, tmp_path / "got")
        check_finished(got)
        assert set(sample_ids(got).values()) == {1}
        assert not any(
            ".partial" in each.path
            for each in store.get_file_info(pafs.FileSelector(BUCKET, recursive=True))
        )


@pytest.mark.slow
def test_a_benchmark_killed_at_work_goes_on_elsewhere(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / "cache"))
    problems = printing_problems(tmp_path / "problems.jsonl", PROBLEMS)
    asked = ["--model", tiny_model, "--prompts", problems, "--samples", 20, "--max-tokens", 64]
    with s3_server(tmp_path / "s3.log") as address:
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        store, _ = pafs.FileSystem.from_uri(f"s3://{BUCKET}")
        run = benchmark("run", *asked, "--output", RUN)
        log = tmp_path / "killed.log"
        with log.open("w") as told:
            driver = subprocess.Popen(run, stdout=told, stderr=told)
        commits = pafs.FileSelector(f"{BUCKET}/toy/commits", allow_not_found=True)
        assert wait_until(
            lambda: bool(store.get_file_info(commits)) or driver.poll() is not None, 300
        )
        assert driver.poll() is None, log.read_text()
        processes = family(driver.pid)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert wait_until(lambda: not living(processes), 30), names(processes)
        shutil.rmtree(tmp_path / "cache/runs")  # as on another machine
        before = stored(store)
        done = subprocess.run(run, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        after = stored(store)
        assert before and {name: after.get(name) for name in before} == before
        ids = sample_ids(got := fetch(RUN, tmp_path / "got"))
        assert len(ids) == PROBLEMS * 20 and set(ids.values()) == {1}
        assert json.loads((got / "results.json").read_text())["complete"]
        assert f"results.json: {RUN}\n" in done.stdout
        again = subprocess.run(run, capture_output=True, text=True, timeout=300)
        assert again.stdout == done.stdout and "engines: starting" not in again.stderr
