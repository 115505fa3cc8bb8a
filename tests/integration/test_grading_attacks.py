"""Programs that want a pass, or no verdict at all, without solving the task: judged by stdio tests.

Each fools the judge that people write first, which runs programs as its own children, with the
tests beside them. That judge runs here too, as the user that programs in boxes are.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from haloforge.schema import Test
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import box_python
from tests.attacking import Row, neighbour, verdict
from tests.boxes import as_box_user

TOKEN = f"expected-{secrets.token_hex(8)}"
SETTINGS = VerifySettings(run_wall_s=3, cache=False)
HUNG_S = 10
NAIVE = """
import json, os, subprocess, sys
mode, tests = sys.argv[1], json.loads(sys.argv[2])
os.set_inheritable(os.open("tests.json", os.O_RDONLY), True)
reports, report = os.pipe()
os.set_inheritable(report, True)
wrapper = "import os, sys; exec(open('main.py').read()); os.write(int(sys.argv[1]), b'0')"
argv = [sys.executable, "-c", wrapper, str(report)] if mode == "report" else ["main.py"]
right = 0
for stdin, expected in tests:
    if mode == "forked":
        done = None
        output, end = os.pipe()
        if os.fork() == 0:
            os.dup2(end, 1)
            exec(open("main.py").read(), {"__name__": "__main__"})
        os.close(end)
        printed = open(output, "rb").read()
    else:
        argv = argv if mode == "report" else [sys.executable, "main.py"]
        done = subprocess.run(argv, input=stdin.encode(), capture_output=True, close_fds=False)
        printed = done.stdout
    os.write(report, b".")
    said = os.read(reports, 9)[:1]
    if mode == "status":
        right += done.returncode == 0
    elif mode == "report":
        right += said == b"1"
    elif mode == "first":
        right += all(a == b for a, b in zip(printed.split(), expected.encode().split()))
    elif mode == "within":
        right += expected.strip() in printed.decode()
    else:
        right += printed.decode().split() == expected.split()
print("passed" if right == len(tests) else "failed")
"""
HEAD = """
import ctypes, mmap, os, re, signal, sys, time
libc = ctypes.CDLL(None)
def look(data):
    found = re.search(rb"expected-[0-9a-f]{16}", data)
    if found:
        print(found[0].decode(), flush=True)
        os._exit(0)
"""
PARENT = "parent = f'/proc/{os.getppid()}'\n"
REGIONS = (
    PARENT + "for line in open(parent + '/maps'):\n    if ' rw' not in line: continue\n"
    "    start, end = (int(part, 16) for part in line.split()[0].split('-'))\n"
)
COUNT = "print(count)\n"
SECRET = [Test(stdin="go\n", stdout=f"{TOKEN}\n")]
TWO = [Test(stdin="go\n", stdout="1\n"), Test(stdin="go\n", stdout="2\n")]
LINES = [Test(stdin="go\n", stdout=f"3\n{TOKEN}\n")]
NUMBER = [Test(stdin="40 2\n", stdout="42\n")]
OUTSIDE = "expected values never enter its box"
FRESH = "a fresh box for each test"
NO_PROC = "namespaces and Landlock: a box sees no other process"
FILTER = "the filter denies it"
KEY = secrets.randbelow(1 << 30) + 1


class Attack(NamedTuple):
    """A Python program, the tests that it wants to pass, and what stops it."""

    code: str
    tests: list[Test]
    first: str
    second: str
    mode: str = "exact"
    """What the judge of people's first thought believes."""
    verdict: str = "passed"
    """What that judge says; nothing when it hangs or dies."""


ATTACKS = {
    "the answers' file beside it": Attack(
        "for name in os.listdir('.'): look(open(name, 'rb').read())", SECRET, OUTSIDE, FRESH
    ),
    "the judge's command line": Attack(
        PARENT + "look(open(parent + '/cmdline', 'rb').read())", SECRET, OUTSIDE, NO_PROC
    ),
    "the judge's environment": Attack(
        PARENT + "look(open(parent + '/environ', 'rb').read())", SECRET, OUTSIDE, NO_PROC
    ),
    "the judge's memory": Attack(
        REGIONS + "    memory = open(parent + '/mem', 'rb', 0)\n    memory.seek(start)\n"
        "    look(memory.read(end - start))",
        SECRET,
        OUTSIDE,
        NO_PROC,
    ),
    "the judge's memory by a call": Attack(
        "class Span(ctypes.Structure):\n"
        "    _fields_ = [('at', ctypes.c_void_p), ('size', ctypes.c_size_t)]\n"
        + REGIONS
        + "    data = ctypes.create_string_buffer(end - start)\n"
        "    ours = Span(ctypes.addressof(data), end - start)\n"
        "    theirs = Span(start, end - start)\n"
        "    libc.process_vm_readv(os.getppid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1,"
        " 0)\n"
        "    look(data.raw)",
        SECRET,
        OUTSIDE,
        FILTER,
    ),
    "its own memory, which was the judge's": Attack(
        "out, end = os.pipe()\nlibc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, "
        "ctypes.c_size_t]\nmiddle = id(object()) & ~4095\n"
        "for page in range(middle - (48 << 20), middle + (16 << 20), 4096):\n"
        "    if libc.write(end, page, 4096) == 4096: look(os.read(out, 4096))",
        SECRET,
        OUTSIDE,
        "the spawner, whose memory a program inherits, reads nothing of a request",
        "forked",
    ),
    "descriptors left open": Attack(
        "for fd in range(3, 256):\n    try: look(os.pread(fd, 1 << 16, 0))\n"
        "    except OSError: pass",
        SECRET,
        OUTSIDE,
        "a box has its own streams alone",
    ),
    "a report of its own": Attack(
        "for fd in range(3, 256):\n    try: os.write(fd, b'1')\n    except OSError: pass\n"
        "os._exit(0)",
        SECRET,
        "the comparison is outside, on what it printed",
        "a box has its own streams alone",
        "report",
    ),
    "a status of 0": Attack(
        "os._exit(0)", SECRET, "the status alone is no verdict", "a test asks for output", "status"
    ),
    "the first line alone": Attack(
        "print(3)", LINES, "all of the output is compared", "none", "first"
    ),
    "every answer": Attack(
        "print(*range(1000))", NUMBER, "all of the output is compared", "none", "within"
    ),
    "a count in files": Attack(
        "count = 0\nfor folder in '.', '/tmp', '/var/tmp', '/dev/shm':\n"
        f"    name = folder + '/{TOKEN}'\n"
        "    try: count = max(count, os.path.getsize(name))\n    except OSError: pass\n"
        "    try:\n        with open(name, 'a') as file: file.write('x')\n"
        "    except OSError: pass\nprint(count + 1)",
        TWO,
        FRESH,
        "namespaces and Landlock: nothing else can be written to",
    ),
    "a count in shared memory": Attack(
        f"key = libc.shmget({KEY}, 4096, 0o1600)\nassert key >= 0\n"
        "libc.shmat.restype = ctypes.c_void_p\nat = libc.shmat(key, None, 0)\n"
        "count = ctypes.c_int.from_address(at)\ncount.value += 1\nprint(count.value)\n"
        "count.value < 2 or libc.shmctl(key, 0, None)",
        TWO,
        FILTER,
        "a namespace of IPC for each box",
    ),
    "a program that rewrites itself": Attack(
        "open('main.py', 'w').write('print(2)')\nprint(1)", TWO, FRESH, "Landlock in runs"
    ),
    "an answer from a child after the end": Attack(
        "if os.fork() == 0:\n    time.sleep(0.5)\n    print(42, flush=True)\nos._exit(0)",
        NUMBER,
        FILTER,
        "a box ends with its program",
    ),
    "a child that waits for the next test": Attack(
        "if os.path.exists('waits'):\n    time.sleep(1.5)\n    print(open('waits').read())\n"
        "    sys.exit()\nprint(1, flush=True)\nopen('waits', 'w').close()\nif os.fork() == 0:\n"
        "    for fd in range(3): os.close(fd)\n    time.sleep(0.5)\n"
        "    open('waits', 'w').write('2')\n    os._exit(0)",
        TWO,
        FILTER,
        FRESH,
    ),
    "killing the judge": Attack(
        "os.kill(os.getppid(), signal.SIGKILL)", NUMBER, NO_PROC, FILTER, verdict=""
    ),
    "killing the judge's group": Attack(
        "os.killpg(0, signal.SIGKILL)", NUMBER, NO_PROC, FILTER, verdict=""
    ),
    "stopping the judge": Attack(
        "os.kill(os.getppid(), signal.SIGSTOP)", NUMBER, NO_PROC, FILTER, verdict=""
    ),
    "tracing the judge": Attack(
        "libc.ptrace.argtypes = [ctypes.c_long] * 4\n"
        "assert libc.ptrace(16, os.getppid(), 0, 0) == 0\ntime.sleep(30)",
        NUMBER,
        FILTER,
        NO_PROC,
        verdict="",
    ),
    "output that is no text": Attack(
        "os.write(1, b'\\xff\\xfe\\x00' * 3000)",
        NUMBER,
        "output is compared as bytes",
        "none",
        verdict="",
    ),
}


@contextlib.contextmanager
def folder_of(code: str, tests: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "main.py").write_text(code)
        (folder / "tests.json").write_text(tests)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o777)
        yield folder
    finally:
        shutil.rmtree(folder)
        for name in ("/tmp", "/var/tmp", "/dev/shm"):
            (Path(name) / TOKEN).unlink(missing_ok=True)


def naive_says(attack: Attack) -> str:
    """What the naive judge says; nothing when it hangs or dies."""
    tests = json.dumps([(test.stdin, test.stdout) for test in attack.tests])
    with folder_of(HEAD + attack.code, tests) as folder:
        argv = [*as_box_user(), box_python(), "-c", NAIVE, attack.mode, tests]
        with subprocess.Popen(
            argv,
            cwd=folder,
            env={"TESTS": tests},
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        ) as judge:
            try:
                return judge.communicate(timeout=HUNG_S)[0].strip()
            except subprocess.TimeoutExpired:
                return ""
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(judge.pid, 9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_the_naive_judge_is_fooled(name: str) -> None:
    assert naive_says(ATTACKS[name]) == ATTACKS[name].verdict


@pytest.mark.parametrize("name", ATTACKS)
def test_ours_is_not(name: str, box: Sandbox) -> None:
    attack = ATTACKS[name]
    verdict(box, "python", "print(1)", NUMBER, SETTINGS)
    assert box._launcher
    spawner = box._launcher._process.pid
    with neighbour(box):
        found = verdict(box, "python", HEAD + attack.code, attack.tests, SETTINGS)
    assert found["outcome"] not in ("passed", "infra_error"), found
    assert found["tests_passed"] < len(attack.tests)
    assert found["reward"] < 1
    assert TOKEN not in found["diagnostics"]
    assert json.loads(json.dumps(found)) == found  # there is a verdict, and it is sound
    assert box._launcher._process.pid == spawner
    assert box._launcher.alive


TABLE = [Row("grading", name, each.first, each.second) for name, each in ATTACKS.items()]
