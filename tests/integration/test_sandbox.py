"""What holds in every box, whatever the tier: limits, lifetimes, streams."""

import ast
import os
import signal
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from haloforge.errors import InfraError
from haloforge.verify import canaries
from haloforge.verify.process import STDERR_CAP, sealed_file
from haloforge.verify.sandbox import BUBBLEWRAP, LANDLOCK, Sandbox
from haloforge.verify.toolchains import PYTHON, box_python
from tests.boxes import HELD, LIMITS, MANY, boxed, eventually, sandbox


def test_environment_is_clean(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALOFORGE_TEST_SECRET", "the-secret")
    box.close()  # its next spawner inherits what is here now
    code = "import os; print(sorted(os.environ))"
    assert set(ast.literal_eval(boxed(box, code).stdout.decode())) <= canaries.BOX_VARIABLES
    printed = box.run(["/usr/bin/env"], {}, b"", LIMITS).stdout.decode()
    assert {line.partition("=")[0] for line in printed.split()} <= canaries.BOX_VARIABLES
    memory = "import ctypes; print(ctypes.string_at(ctypes.c_void_p.in_dll(ctypes.CDLL(None), "
    memory += "'environ').value and ctypes.cast(ctypes.c_void_p.in_dll(ctypes.CDLL(None), "
    memory += "'environ').value, ctypes.POINTER(ctypes.c_char_p))[0]))"
    assert b"the-secret" not in boxed(box, memory).stdout


def test_only_an_ordinary_user(box: Sandbox) -> None:
    result = boxed(
        box, "import os; print(os.getuid(), os.geteuid(), os.getgroups() == [os.getgid()])"
    )
    assert result.stdout.split()[0] == result.stdout.split()[1] != b"0"


def test_only_standard_streams_are_open(box: Sandbox) -> None:
    code = """
        import os
        for fd in range(1024):
            try:
                os.fstat(fd)
                print(fd)
            except OSError:
                pass
    """
    assert boxed(box, code).stdout.split() == [b"0", b"1", b"2"]
    cold = box.run([box_python(), "-c", textwrap.dedent(code)], {}, b"", LIMITS)
    assert cold.stdout.split() == [b"0", b"1", b"2"]


@pytest.mark.parametrize("tier", HELD)
def test_nothing_writable_but_the_box(tier: str) -> None:
    code = """
        import os
        places = ["/", "/box", "/dev", "/etc", "/home", "/proc", "/run", "/tmp", "/usr", "/var"]
        for top in [*places, os.getcwd()]:
            for folder, folders, files in os.walk(top):
                if folder.count("/") > 3:
                    folders.clear()
                try:
                    open(folder + "/new", "w").close()
                    print(os.path.realpath(folder))
                except OSError:
                    pass
    """
    box = sandbox(tier)
    limits = replace(LIMITS, wall_s=60)
    found = set(boxed(box, code, limits).stdout.split())
    assert found == ({b"/box"} if tier == BUBBLEWRAP else set())
    many = replace(limits, single_process=False)
    assert len(set(boxed(box, code, many).stdout.split())) == 1


def test_boxes_do_not_see_each_other(box: Sandbox) -> None:
    code = "import time; open('mine', 'w').write('other-box'); time.sleep(60)"
    with box.start([*PYTHON, "-c", code], {}, b"", MANY) as other:
        assert eventually(lambda: bool(other.processes()))
        mine = Path(f"/proc/{other.processes()[0]}/cwd/mine")
        assert eventually(lambda: mine.exists() and mine.read_text() == "other-box")
        look = f"import os; print(os.listdir('.'), os.path.exists({str(mine)!r}))"
        assert boxed(box, look).stdout == b"['main.py'] False\n"
        result = boxed(box, f"print(open('{mine.parent.readlink()}/mine').read())")
        assert not result.clean
        assert mine.exists()


@pytest.mark.parametrize("tier", HELD)
def test_fork_bomb_is_bounded(tier: str) -> None:
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
    start = time.monotonic()
    result = boxed(sandbox(tier), code, MANY)
    assert time.monotonic() - start < 15
    if tier == BUBBLEWRAP:
        assert 0 < int(result.stdout) <= MANY.processes
    else:
        assert result.killed
        assert not result.timed_out


@pytest.mark.parametrize("tier", HELD)
def test_thread_bomb_is_bounded(tier: str) -> None:
    code = """
        import os, threading, time
        threading.stack_size(32768)
        count = 0
        try:
            while True:
                threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
                count += 1
        except RuntimeError:
            print(count, flush=True)
            time.sleep(2)
            os._exit(0)
    """
    result = boxed(sandbox(tier), code)
    if tier == BUBBLEWRAP:
        assert 0 < int(result.stdout) <= LIMITS.processes
    else:
        assert result.killed
        assert not result.timed_out


def test_memory_is_bounded(box: Sandbox) -> None:
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
    result = boxed(box, code)
    megabytes = int(result.stdout)  # a second line would be no number
    assert 64 < megabytes < LIMITS.memory_mb
    assert megabytes << 20 < result.max_rss < LIMITS.memory_mb << 20
    assert not result.memory_exceeded  # it did well with what it got


def test_memory_is_bounded_over_all_processes(box: Sandbox) -> None:
    code = """
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                kept = b"x" * (150 << 20)
                time.sleep(60)
        time.sleep(60)
    """
    result = boxed(box, code, MANY)
    assert result.memory_exceeded
    assert result.killed
    assert result.wall_ms < 15_000


@pytest.mark.parametrize("tier", HELD)
def test_disk_is_bounded(tier: str) -> None:
    code = """
        total = 0
        try:
            for index in range(100):
                with open(f"fill{index}", "wb", buffering=0) as file:
                    total += file.write(bytes(1 << 20))
        finally:
            print(total)
    """
    for limits in (LIMITS, MANY):
        result = boxed(sandbox(tier), code, limits)
        if tier == BUBBLEWRAP:
            assert (2 << 20) < int(result.stdout) <= (4 << 20)
            assert b"No space left" in result.stderr
            assert result.disk_full
    if tier == LANDLOCK:  # where runs write nothing; compilations are looked at
        slow = "import time\nfor index in range(100):\n    time.sleep(0.02)\n"
        slow += "    open(f'fill{index}', 'wb').write(bytes(1 << 20))"
        assert boxed(sandbox(tier), slow, MANY).disk_full


def test_a_file_is_bounded(box: Sandbox) -> None:
    writer = "dd if=/dev/zero of=big bs=1M count=3 2>/dev/null; ulimit -f; exec cat big big > two"
    result = box.run(["/bin/sh", "-c", writer], {}, b"", MANY)
    assert result.signal == signal.SIGXFSZ or result.disk_full


def test_cpu_time_is_bounded_apart_from_the_wall_clock(box: Sandbox) -> None:
    limits = replace(LIMITS, cpu_s=0.5)
    assert boxed(box, "import time\ntime.sleep(1)\nprint(1)", limits).stdout == b"1\n"
    endless = boxed(box, "while True: pass", replace(limits, wall_s=600))
    assert endless.timed_out
    assert endless.wall_ms < 300_000, "it was the wall clock that ended it"


def test_the_kernels_own_limit_of_cpu_time_is_a_time_out(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haloforge.verify.box.LOOK_EVERY_S", 600)
    endless = boxed(box, "while True: pass", replace(LIMITS, cpu_s=0.5, wall_s=600))
    assert endless.signal == signal.SIGKILL, "it was the host that ended it"
    assert endless.timed_out


def test_the_number_of_files_is_bounded(box: Sandbox) -> None:
    few = "for index in range(5): open(str(index), 'w').close()\nprint(1)"
    many = "import time\nfor index in range(30): open(str(index), 'w').close(); time.sleep(0.02)"
    limits = replace(MANY, files=20)
    assert boxed(box, few, limits).stdout == b"1\n"
    assert boxed(box, many, limits).disk_full


def test_many_empty_files_are_bounded(box: Sandbox) -> None:
    code = "import time\nfor index in range(1_000_000):\n    open(str(index), 'w').close()"
    result = boxed(box, code, MANY)
    assert result.disk_full
    assert not result.clean


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


def test_endless_diagnostics_do_not_stop_the_clock(box: Sandbox) -> None:
    code = "import sys\nwhile True: print('x' * 1000, file=sys.stderr)"
    assert boxed(box, code, replace(LIMITS, wall_s=1)).timed_out


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
    aborted = boxed(box, "import os; os.abort()")
    assert (aborted.exit_code, aborted.signal) == (None, 6)
    failed = boxed(box, "import sys; sys.exit(3)")
    assert (failed.exit_code, failed.signal) == (3, None)
    high = box.run(["/bin/sh", "-c", "exit 139"], {}, b"", LIMITS)
    assert (high.exit_code, high.signal) == (139, None)


def test_a_program_that_does_not_start_is_ours_or_not(box: Sandbox) -> None:
    with pytest.raises(InfraError, match=r"the box failed: .*No such file"):
        box.run(["no-such-compiler"], {}, b"", LIMITS)
    broken = box.run(["./program"], {"program": b"\x7fELF, but not really"}, b"", LIMITS)
    assert broken.exit_code == 126
    assert b"Exec format error" in broken.stderr


def test_usage_is_measured(box: Sandbox) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nkept = b'x' * (100 << 20)"
    result = boxed(box, burn)
    assert 300 <= result.cpu_ms < 2000
    assert 100 << 20 < result.max_rss < 200 << 20
    assert boxed(box, "print(1)").max_rss < 50 << 20


def test_running_out_of_memory_is_told(box: Sandbox) -> None:
    assert boxed(box, "x = bytearray(1 << 30)").memory_exceeded  # MemoryError
    near = "kept = b'x' * (210 << 20)\nimport os; os.abort()"
    assert boxed(box, near).memory_exceeded  # says nothing, but was near its limit
    assert not boxed(box, "import os; os.abort()").memory_exceeded


def test_cpu_time_is_bounded_even_without_us(box: Sandbox) -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CPU))"
    cores = os.cpu_count() or 1
    limits = replace(LIMITS, wall_s=2)
    assert boxed(box, code, limits).stdout.decode().strip() == f"({2 * cores + 1}, {2 * cores + 1})"


def test_a_file_for_many_boxes_is_read_by_each(box: Sandbox) -> None:
    with os.fdopen(sealed_file("shared", b"print(open('data').read())")) as file:
        for _ in range(3):
            files: dict[str, bytes | int] = {"main.py": file.fileno(), "data": b"1"}
            assert box.run([*PYTHON, "main.py"], files, b"", LIMITS).stdout == b"1\n"
