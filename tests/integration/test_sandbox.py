"""The sandbox against real attacks, each judged by its effect and shown to work outside."""

import ast
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from haloforge.verify import canaries
from haloforge.verify.process import STDERR_CAP, RunResult
from haloforge.verify.sandbox import BoxLimits, Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import box_python

LIMITS = BoxLimits(
    wall_s=20, memory_mb=256, processes=16, output_kb=64, file_mb=4, single_process=True
)
MANY = replace(LIMITS, single_process=False)
SETTINGS = VerifySettings()


@pytest.fixture(scope="module")
def box() -> Sandbox:
    return Sandbox.probe(SETTINGS)


def boxed(box: Sandbox, code: str, limits: BoxLimits = LIMITS, stdin: bytes = b"") -> RunResult:
    source = textwrap.dedent(code).encode()
    return box.run([box_python(), "-I", "main.py"], {"main.py": source}, stdin, limits)


def bare(code: str) -> str:
    """What the same script prints as an ordinary child of this process."""
    argv = [box_python(), "-I", "-c", textwrap.dedent(code)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.strip()


def processes_with(marker: str) -> list[int]:
    """The host's processes that carry `marker` on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and marker.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


@dataclass(frozen=True)
class Host:
    """What an attacker is after: a file, two sockets, a process, and this process itself."""

    folder: Path
    port: int
    abstract: str
    victim: int


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    for path in (folder, folder.parent, folder.parent.parent):
        path.chmod(0o777)  # so that it is the box that protects it
    (folder / "secret").write_text("the-secret")
    abstract = f"haloforge-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=50) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as nameless,
        subprocess.Popen(["/bin/sleep", "600"]) as victim,
    ):
        unix.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        unix.listen(50)
        nameless.bind(f"\0{abstract}")
        nameless.listen(50)
        try:
            yield Host(folder, tcp.getsockname()[1], abstract, victim.pid)
        finally:
            victim.kill()


# Each prints `worked` when it worked. {names} are fields of Host; pid is this process.
ATTACKS = {
    "read a host file": "assert open('{folder}/secret').read() == 'the-secret'",
    "write a host file": "open('{folder}/written', 'w').write('x')",
    "delete a host file": "open('{folder}/../gone', 'w').close(); os.remove('{folder}/../gone')",
    "list the host's home folders": "assert os.listdir('{folder}')",
    "connect to TCP": "socket.create_connection(('127.0.0.1', {port}), 2)",
    "send UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "connect to a unix socket": "socket.socket(socket.AF_UNIX).connect('{folder}/socket')",
    "connect to an abstract socket": r"socket.socket(socket.AF_UNIX).connect('\0{abstract}')",
    "signal a host process": "os.kill({victim}, 0)",
    "trace a host process": "assert libc.ptrace(16, {victim}, 0, 0) == 0",
    "change a host process's priority": "os.setpriority(os.PRIO_PROCESS, {victim}, 5)",
    "read the parent's environment": "assert open('/proc/{pid}/environ', 'rb').read()",
    "read the parent's command line": "assert open('/proc/{pid}/cmdline', 'rb').read()",
    "start a process": "assert os.system('/bin/true') == 0",
    "fork": "os.fork() or os._exit(0)",
    "keep memory in a memfd": "os.memfd_create('x')",
    "keep memory in System V shared memory": "assert libc.shmget(0, 4096, 0o1600) >= 0",
    "keep memory in /dev/shm": "open('/dev/shm/haloforge', 'w'); os.remove('/dev/shm/haloforge')",
    "become root of a new user namespace": "assert libc.unshare(0x10000000) == 0",
    "raise its memory limit": "resource.setrlimit(resource.RLIMIT_AS, (1 << 50, 1 << 50))",
    "raise its process limit": "resource.setrlimit(resource.RLIMIT_NPROC, (17, 17))",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_works_outside_and_fails_inside(name: str, host: Host, box: Sandbox) -> None:
    line = ATTACKS[name].format(**vars(host), pid=os.getpid())
    code = f"""
import ctypes, os, resource, socket
libc = ctypes.CDLL(None)
libc.ptrace.argtypes = [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2
try:
    {line}
    print("worked")
except (OSError, AssertionError, ValueError) as error:
    print("failed", repr(error))
"""
    assert bare(code).splitlines()[-1] == "worked", "the attack itself is broken"
    (host.folder / "written").unlink(missing_ok=True)
    result = boxed(box, code)
    assert result.stdout.startswith(b"failed"), result
    assert not (host.folder / "written").exists()


def test_environment_is_clean(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALOFORGE_TEST_SECRET", "the-secret")
    code = "import os; print(sorted(os.environ))"
    assert "HALOFORGE_TEST_SECRET" in bare(code.replace("-I", ""))
    names = set(ast.literal_eval(boxed(box, code).stdout.decode()))
    assert names <= canaries.BOX_VARIABLES


def test_only_an_ordinary_user(box: Sandbox) -> None:
    result = boxed(
        box, "import os; print(os.getuid(), os.geteuid(), os.getgroups() == [os.getgid()])"
    )
    assert result.stdout.split()[0] == result.stdout.split()[1] != b"0"


def test_only_standard_streams_are_open(box: Sandbox) -> None:
    code = """
        import os
        for fd in range(64):
            try:
                os.fstat(fd)
                print(fd)
            except OSError:
                pass
    """
    assert boxed(box, code).stdout.split() == [b"0", b"1", b"2"]


def test_nothing_writable_but_the_box(box: Sandbox) -> None:
    code = """
        import os
        for folder, folders, files in os.walk("/"):
            if folder.count("/") > 3:
                folders.clear()
            try:
                open(folder + "/new", "w").close()
                print(folder)
            except OSError:
                pass
    """
    assert boxed(box, code, replace(LIMITS, wall_s=60)).stdout.split() == [b"/box"]


def test_boxes_do_not_see_each_other(box: Sandbox) -> None:
    seen: list[RunResult] = []
    code = "import sys, time; open('mine', 'w').write('other-box'); print(open('mine').read()); "
    code += "sys.stdout.flush(); time.sleep(3)  # keeper"
    keeper = threading.Thread(
        target=lambda: seen.append(box.run([box_python(), "-c", code], {}, b"", LIMITS))
    )
    keeper.start()
    assert eventually(lambda: bool(processes_with(f"{box_python()}\0-c\0{code}")))
    time.sleep(0.5)
    result = boxed(box, "import os; print(os.listdir('/box'), os.path.exists('/proc/1'))")
    assert keeper.is_alive(), "the other box was gone before this one looked"
    keeper.join()
    assert seen[0].stdout == b"other-box\n"
    assert result.stdout == b"['main.py'] False\n"


def test_fork_bomb_is_bounded(box: Sandbox) -> None:
    code = """
        import os, time
        count = 0
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(30)
                count += 1
        except OSError:
            print(count)
    """
    result = boxed(box, code, MANY)
    assert 0 < int(result.stdout) <= MANY.processes
    assert result.wall_ms < 10_000  # the sleepers end with the box


def test_thread_bomb_is_bounded(box: Sandbox) -> None:
    code = """
        import os, threading, time
        count = 0
        try:
            while True:
                threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
                count += 1
        except RuntimeError:
            print(count, flush=True)
            os._exit(0)
    """
    assert 0 < int(boxed(box, code).stdout) <= LIMITS.processes


def test_memory_is_bounded_over_all_processes(box: Sandbox) -> None:
    code = """
        import os
        try:
            os.fork()
            print("forked")
        except OSError:
            pass
        kept, total = [], 0
        try:
            while total < 4096:
                kept.append(b"x" * (8 << 20))
                total += 8
        except MemoryError:
            pass
        print(total)
    """
    megabytes = int(boxed(box, code).stdout)  # a second line would be no number
    assert 64 < megabytes < LIMITS.memory_mb


def test_disk_is_bounded(box: Sandbox) -> None:
    code = """
        total = 0
        try:
            for index in range(100):
                with open(f"fill{index}", "wb", buffering=0) as file:
                    total += file.write(bytes(1 << 20))
        except OSError as error:
            print(total, error.errno)
    """
    total, error = boxed(box, code).stdout.split()
    assert (2 << 20) < int(total) <= (4 << 20)
    assert int(error) == 28  # no space left


def test_daemon_ends_with_its_box(box: Sandbox) -> None:
    marker = f"daemon-{os.getpid()}"
    code = f"""
        import os, subprocess, sys, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3):
                    os.close(fd)
                sleep = "import time; time.sleep(60)"
                os.execv(sys.executable, [sys.executable, "-c", sleep, "{marker}"])
            os._exit(0)
        time.sleep(1)
    """
    alive: list[bool] = []
    watch = threading.Thread(
        target=lambda: alive.append(eventually(lambda: bool(processes_with(f"60)\0{marker}"))))
    )
    watch.start()
    result = boxed(box, code, MANY)
    left = processes_with(f"60)\0{marker}")
    watch.join()
    assert result.clean
    assert alive == [True], "the daemon never ran, so nothing was shown"
    assert left == []


def test_sleeper_is_killed_at_its_deadline_and_gone(box: Sandbox) -> None:
    limits = replace(LIMITS, wall_s=0.5)
    result = box.run(["/bin/sleep", "7654.25"], {}, b"", limits)
    assert processes_with("7654.25") == []
    assert result.timed_out
    assert not result.clean
    assert 500 <= result.wall_ms < 3000


def test_boxes_die_with_the_process_that_runs_them(box: Sandbox) -> None:
    script = textwrap.dedent(
        """
        from haloforge.verify.sandbox import CANARY_LIMITS, Sandbox
        from haloforge.verify.settings import VerifySettings
        Sandbox.probe(VerifySettings()).run(["/bin/sleep", "8765.25"], {}, b"", CANARY_LIMITS)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script]) as owner:
        assert eventually(lambda: bool(processes_with("sleep\0008765.25")), 30)
        time.sleep(0.5)  # bubblewrap binds itself to its parent some milliseconds after it starts
        owner.send_signal(signal.SIGKILL)
    assert eventually(lambda: not processes_with("8765.25"), 5)


def test_endless_output_is_cut(box: Sandbox) -> None:
    result = boxed(box, "while True: print('x' * 1000)")
    assert result.output_truncated
    assert not result.timed_out
    assert len(result.stdout) == LIMITS.output_kb * 1024
    assert result.wall_ms < 5000


def test_endless_diagnostics_are_dropped(box: Sandbox) -> None:
    code = "import sys\nfor _ in range(3000): print('x' * 1000, file=sys.stderr)\nprint('done')"
    result = boxed(box, code)
    assert result.clean
    assert result.stdout == b"done\n"
    assert len(result.stderr) == STDERR_CAP


def test_large_input_and_output_pass(box: Sandbox) -> None:
    text = b"x" * 3_000_000
    limits = replace(LIMITS, output_kb=4096)
    assert boxed(box, "import sys; sys.stdout.write(sys.stdin.read())", limits, text).stdout == text
    assert boxed(box, "print(1)", stdin=text).stdout == b"1\n"  # unread input blocks nobody


def test_standard_input_has_its_usual_name(box: Sandbox) -> None:
    assert boxed(box, "print(open('/dev/stdin').read())", stdin=b"hi").stdout == b"hi\n"


def test_signal_and_status_are_told_apart(box: Sandbox) -> None:
    crashed = boxed(box, "import os; os.kill(os.getpid(), 11)")
    assert (crashed.exit_code, crashed.signal) == (None, 11)
    failed = boxed(box, "import sys; sys.exit(3)")
    assert (failed.exit_code, failed.signal) == (3, None)


def test_cpu_time_is_bounded_even_without_us(box: Sandbox) -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CPU))"
    cores = os.cpu_count() or 1
    limits = replace(LIMITS, wall_s=2)
    assert boxed(box, code, limits).stdout.decode().strip() == f"({2 * cores + 1}, {2 * cores + 1})"


def test_a_busy_machine_is_not_the_programs_fault(box: Sandbox) -> None:
    code = "import time\nwhile time.process_time() < 0.8: pass\nprint('done')"
    cores = os.sched_getaffinity(0)
    busy = [box_python(), "-c", "while True: pass"]
    os.sched_setaffinity(0, {min(cores)})  # inherited by what starts here
    rivals = [subprocess.Popen(busy) for _ in range(3)]
    try:
        result = boxed(box, code, replace(LIMITS, wall_s=1.4))
        endless = boxed(box, "while True: pass", replace(LIMITS, wall_s=0.5))
    finally:
        os.sched_setaffinity(0, cores)
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert result.wall_ms > 1400, "the machine was not busy, so nothing was shown"
    assert result.stdout == b"done\n"
    assert not result.timed_out
    assert endless.timed_out
    assert endless.wall_ms < 4000
