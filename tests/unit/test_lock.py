"""One process at a time in a run folder."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from haloforge.errors import InputError
from haloforge.store.lock import LOCK, hold, is_held, release
from haloforge.store.run import open_run, set_aside

OTHER = """
import subprocess, sys, time
from pathlib import Path
from haloforge.store.run import open_run
open_run(Path(sys.argv[1]), {"seed": 0})
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""


@contextmanager
def at_work(folder: Path) -> Iterator[int]:
    """Another process with a run in `folder`, killed on leaving; its child lives as long as this
    block does, and then some."""
    command = [sys.executable, "-c", OTHER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()
            try:
                open_run(folder, {"seed": 0})  # killed, and its child lives: the folder is free
            finally:
                os.kill(child, 9)


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    run = tmp_path / "pipeline" / "raft"
    with at_work(run) as pid:
        with pytest.raises(InputError, match=f"another process is at work here .pid {pid} on "):
            open_run(run, {"seed": 0})
        with pytest.raises(InputError, match=r"raft: another process"):
            open_run(run, {"seed": 1}, fresh=True)
        with pytest.raises(InputError, match=r"raft: another process"):
            set_aside(tmp_path / "pipeline")
        open_run(tmp_path / "other", {"seed": 0})
    assert open_run(run, {"seed": 0}) == open_run(run, {"seed": 0})


def test_a_folder_that_was_set_aside_or_removed_is_held_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run, {"seed": 0})
    open_run(run, {"seed": 1}, fresh=True)
    run.rename(tmp_path / "moved")
    open_run(run, {"seed": 2})
    assert f"pid {os.getpid()} on" in (run / LOCK).read_text()
    open_run(run, {"seed": 2})


def test_a_file_system_without_locks_keeps_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    open_run(tmp_path / "run", {"seed": 0})
    assert open_run(tmp_path / "run", {"seed": 0})


def test_whether_a_folder_is_held_is_told_and_changes_nothing(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []
    hold(tmp_path)
    assert is_held(tmp_path)
    release(tmp_path)
    assert not is_held(tmp_path)


def test_one_who_only_looks_keeps_no_run_out(tmp_path: Path) -> None:
    hold(tmp_path)
    release(tmp_path)
    with (tmp_path / LOCK).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.02, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        hold(tmp_path)
    assert is_held(tmp_path)
    release(tmp_path)
