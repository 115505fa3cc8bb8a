"""Nothing of a box outlives it, its neighbours do not notice it, and many leave nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from haloforge.errors import InfraError
from haloforge.verify.guards import PR_SET_PDEATHSIG
from haloforge.verify.sandbox import BUBBLEWRAP, LANDLOCK, Sandbox
from haloforge.verify.spawner import descendants
from haloforge.verify.toolchains import PYTHON, box_python
from tests.boxes import HELD, LIMITS, MANY, boxed, bubblewrap, eventually, processes_with, sandbox


def test_wild_fork_bomb_ends_with_its_box(box: Sandbox) -> None:
    marker = f"bomb{os.getpid()}"
    code = "import os, sys\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    result = box.run([box_python(), "-c", code, marker], {}, b"", replace(MANY, wall_s=1))
    assert result.killed
    assert processes_with(marker) == []


def test_a_neighbour_of_a_bomb_has_its_processes(box: Sandbox) -> None:
    """Processes are counted for each box apart."""
    bomb = "import os, time\nfor _ in range(12):\n    if os.fork() == 0: time.sleep(60)\n"
    bomb += "print('all', flush=True); time.sleep(60)"
    with box.start([*PYTHON, "-c", bomb], {}, b"", MANY) as other:
        assert eventually(lambda: len(other.processes()) >= 13)
        pipeline = "for i in 1 2 3 4 5 6 7 8; do /bin/sleep 0.2 & done; wait; echo done"
        assert box.run(["/bin/sh", "-c", pipeline], {}, b"", MANY).stdout == b"done\n"
        assert len(other.processes()) >= 13


def test_sleeper_is_killed_at_its_deadline_and_gone(box: Sandbox) -> None:
    limits = replace(LIMITS, wall_s=0.5)
    result = box.run(["/bin/sleep", "7654.25"], {}, b"", limits)
    assert processes_with("7654.25") == []
    assert result.timed_out
    assert not result.clean
    assert 500 <= result.wall_ms < 3000


def test_program_cannot_end_what_watches_it(box: Sandbox) -> None:
    """By signals to its parent: PID 1 in a namespace, and the process that adopts without one."""
    code = """
        import os, signal
        for number in set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
            for pid in (1, os.getppid()):
                try:
                    pid and os.kill(pid, number)
                except OSError:
                    pass
        print("done")
    """
    for limits in (LIMITS, MANY):
        result = boxed(box, code, limits)
        assert result.stdout == b"done\n", result


@pytest.mark.parametrize("tier", HELD)
def test_boxes_die_with_the_process_that_runs_them(tier: str) -> None:
    bubblewrap = sandbox(BUBBLEWRAP)._bubblewrap
    script = textwrap.dedent(
        f"""
        from haloforge.verify.sandbox import CANARY_LIMITS, Sandbox
        box = Sandbox({tier!r}, {bubblewrap!r})
        box.run(["/bin/sleep", "8765.25"], {{}}, b"", CANARY_LIMITS)
        """
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        environment = {**os.environ, "TMPDIR": folder}
        with subprocess.Popen([sys.executable, "-c", script], env=environment) as owner:
            assert eventually(lambda: bool(processes_with("sleep\0008765.25")), 30)
            assert any(Path(folder).iterdir()) is (tier == LANDLOCK)
            owner.send_signal(signal.SIGKILL)
        assert eventually(lambda: not processes_with("8765.25"), 5)
        assert eventually(lambda: not any(Path(folder).iterdir()), 5)


def test_a_spawner_that_died_is_started_again(box: Sandbox) -> None:
    boxed(box, "print(1)")
    with box.start(["/bin/sleep", "9876.25"], {}, b"", LIMITS) as sleeper:
        assert eventually(lambda: bool(processes_with("9876.25")))
        spawner = parent(sleeper.pid)
        os.kill(spawner, signal.SIGKILL)
        assert eventually(lambda: not processes_with("9876.25"), 5)
        with pytest.raises(InfraError, match="the box failed: it was killed"):
            sleeper.wait()  # which is no fault of the program
        with pytest.raises(InfraError, match="the box failed"):
            boxed(box, "print(1)")
        assert boxed(box, "print(1)").stdout == b"1\n"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


COMPUTE = "import time\nwhile time.process_time() < 0.5: pass\n"


@contextlib.contextmanager
def one_busy_core(box: Sandbox) -> Iterator[None]:
    """Three other programs on the one core that boxes have, each a session, as a box is: where the
    kernel groups by sessions, those share the core."""
    cores = os.sched_getaffinity(0)
    dies_with_us = f"import ctypes; ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {signal.SIGKILL})"
    busy = [box_python(), "-c", f"{dies_with_us}\nwhile True: pass"]
    box.close()
    os.sched_setaffinity(0, {min(cores)})  # inherited by what starts here
    rivals = [subprocess.Popen(busy, start_new_session=True) for _ in range(3)]
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        box.close()
        for rival in rivals:
            rival.kill()
            rival.wait()


def test_a_busy_machine_is_not_the_programs_fault(box: Sandbox) -> None:
    with one_busy_core(box):
        result = boxed(box, f"{COMPUTE}print('done')", replace(LIMITS, wall_s=1.2))
        endless = boxed(box, "while True: pass", replace(LIMITS, wall_s=0.5))
    assert result.wall_ms > 1200, "the machine was not busy, so nothing was shown"
    assert result.stdout == b"done\n"
    assert not result.timed_out
    assert endless.timed_out
    assert endless.wall_ms < 4000


@pytest.mark.parametrize("known", [True, False])
def test_nor_that_of_a_box_that_waits_for_another(box: Sandbox, known: bool) -> None:
    asked, asks = os.pipe()
    with one_busy_core(box), ThreadPoolExecutor() as pool:
        waits = [*PYTHON, "-c", "import os; print(os.read(3, 9))"]
        limits = replace(LIMITS, wall_s=1.2)
        waiting = box.start(waits, {}, b"", limits, streams={3: asked})
        computes = [*PYTHON, "-c", f"{COMPUTE}import os; os.write(3, b'done')"]
        computing = box.start(computes, {}, b"", LIMITS, streams={3: asks})
        waiting.asked_by = computing if known else None
        os.close(asked)
        os.close(asks)
        with waiting, computing:
            first, second = pool.map(lambda each: each.wait(), (waiting, computing))
    assert second.wall_ms > 1300, "the machine was not busy, so nothing was shown"
    assert first.timed_out is not known


def test_nor_that_of_processes_one_after_the_other(box: Sandbox) -> None:
    """As a compiler's, which live longer than the time between two looks: what each waited is seen
    while it lives.
    """
    counting = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done"
    steps = f"for step in 1 2 3; do /bin/sh -c '{counting}' || exit 1; done; echo done"
    with one_busy_core(box):
        alone = box.run(["/bin/sh", "-c", steps], {}, b"", replace(MANY, wall_s=60))
        limits = replace(MANY, wall_s=alone.cpu_ms / 1000 * 1.8)
        result = box.run(["/bin/sh", "-c", steps], {}, b"", limits)
    assert alone.wall_ms > 2.5 * alone.cpu_ms, "the machine was not busy, so nothing was shown"
    assert result.stdout == b"done\n", result


def test_a_program_that_got_no_cpu_is_no_time_out(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haloforge.verify.box.BUSY_FACTOR", 1.5)
    with one_busy_core(box), pytest.raises(InfraError, match="others had the CPUs"):
        boxed(box, "while True: pass", replace(LIMITS, wall_s=1))


def test_threads_that_wait_for_each_other_gain_no_time(box: Sandbox) -> None:
    """They all wake at once, for a moment: each waits for the CPU, most of the time none does."""
    code = """
    import threading, time
    def wake():
        while True:
            time.sleep(0.01 - time.time() % 0.01)
            sum(range(1000))
    for _ in range(30):
        threading.Thread(target=wake).start()
    """
    result = boxed(box, code, replace(MANY, processes=64, wall_s=1))
    assert result.timed_out
    assert result.wall_ms < 2500, "the threads bought time"


def test_two_boxes_joined_by_pipes(box: Sandbox) -> None:
    """Each has a pipe to the other, and sees its end."""
    asks = "import os; os.write(4, b'question'); os.close(4); print(os.read(3, 100).decode())"
    answers = "import os; asked = os.read(3, 100); os.write(4, b'answer to ' + asked); "
    answers += "print(os.read(3, 100))"
    to, answer_from = os.pipe(), os.pipe()
    one = box.start([*PYTHON, "-c", asks], {}, b"", LIMITS, streams={3: answer_from[0], 4: to[1]})
    two = box.start(
        [*PYTHON, "-c", answers], {}, b"", LIMITS, streams={3: to[0], 4: answer_from[1]}
    )
    for fd in (*to, *answer_from):
        os.close(fd)
    with one, two, ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda each: each.wait(), (one, two))
    assert first.stdout == b"answer to question\n", first
    assert second.stdout == b"b''\n", second


def test_threads_use_one_sandbox(box: Sandbox) -> None:
    def run(number: int) -> bool:
        return boxed(box, f"print({number})").stdout == f"{number}\n".encode()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(60)))


@pytest.mark.parametrize("tier", HELD)
def test_nothing_is_left_of_many_boxes(tier: str) -> None:
    box = Sandbox(tier, bubblewrap())
    folders = set(Path(tempfile.gettempdir()).glob("haloforge-boxes-*"))

    def held() -> tuple[int, list[int], int]:
        assert box._launcher
        mounts = Path("/proc/self/mountinfo").read_text().count("\n")
        fds = len(list(Path("/proc/self/fd").iterdir()))
        return fds, descendants(box._launcher._process.pid), mounts

    def spawner_memory() -> int:
        assert box._launcher
        pids = [box._launcher._process.pid, *descendants(box._launcher._process.pid)]
        texts = [Path(f"/proc/{pid}/statm").read_text() for pid in pids]
        return sum(int(text.split()[1]) for text in texts) * os.sysconf("SC_PAGE_SIZE")

    def run(times: int) -> None:
        for _ in range(times):
            assert boxed(box, "print(1)").clean
            assert box.run(["/bin/sh", "-c", "echo > x"], {}, b"", MANY).clean

    run(10)
    before, memory = held(), spawner_memory()
    run(150)
    assert held() == before
    assert spawner_memory() - memory < 1 << 19
    spawners = before[1]
    box.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in spawners)
    assert set(Path(tempfile.gettempdir()).glob("haloforge-boxes-*")) <= folders
