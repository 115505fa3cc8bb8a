"""A run in object storage, killed at work and taken up on a machine that has no copy of it."""

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
from tests.integration.test_pipeline import check_finished, toy
from tests.object_storage import BUCKET, environment, s3_server
from tests.runs import sample_ids

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
