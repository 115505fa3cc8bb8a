"""The report that is written while a run goes on: whatever its process does, the run goes on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from haloforge.observe import live as module
from haloforge.observe.live import LiveReport
from haloforge.store.layout import REPORT
from tests.processes import wait_until

WRITES = "import pathlib; p = pathlib.Path({page!r}); p.write_text(p.read_text() + 'x')"


@pytest.fixture
def stands_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Has a program in Python write the report, and returns where the report is."""

    def put(program: str) -> Path:
        page = tmp_path / REPORT
        page.write_text("")
        text = program.format(page=str(page), folder=str(tmp_path))
        monkeypatch.setattr(module, "command", lambda run: [sys.executable, "-c", text])
        return page

    return put


def test_it_is_written_when_asked_and_at_the_end(
    tmp_path: Path, stands_in: Callable[[str], Path]
) -> None:
    page, said = stands_in(WRITES), list[str]()
    report = LiveReport(tmp_path, said.append)
    report.write()
    assert wait_until(lambda: page.read_text() == "x", 30)
    report.close()
    assert page.read_text() == "xx" and said == []
    assert not any(thread.name == "report" for thread in threading.enumerate())


def test_what_is_asked_for_meanwhile_is_done_once(
    tmp_path: Path, stands_in: Callable[[str], Path]
) -> None:
    waits = "import pathlib, time\nwhile not pathlib.Path({folder!r}, 'go').exists(): "
    page = stands_in(f"{waits}time.sleep(0.05)\n{WRITES}")
    report = LiveReport(tmp_path, print)
    report.write()
    assert wait_until(lambda: report._child is not None, 30)
    for _ in range(20):
        report.write()
    (tmp_path / "go").touch()
    assert wait_until(lambda: page.read_text() == "xx", 30)
    report.close()
    assert page.read_text() == "xxx"


def test_the_last_state_is_written_where_one_hangs(
    tmp_path: Path, stands_in: Callable[[str], Path]
) -> None:
    first = "import pathlib, time\np = pathlib.Path({folder!r}, 'hung')\n"
    page = stands_in(f"{first}if not p.exists():\n    p.touch()\n    time.sleep(600)\n{WRITES}")
    said: list[str] = []
    report = LiveReport(tmp_path, said.append)
    report.write()
    assert wait_until((tmp_path / "hung").exists, 30)
    report.close()
    assert page.read_text() == "x" and said == []


def test_one_that_takes_too_long_is_ended_and_that_is_said_once(
    tmp_path: Path, stands_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_in("import os, pathlib, time\npathlib.Path({folder!r}, str(os.getpid())).touch()\n"
              "time.sleep(600)")  # fmt: skip
    monkeypatch.setattr(module, "_WAIT_S", 2.0)
    said: list[str] = []
    report = LiveReport(tmp_path, said.append)
    report.write()
    assert wait_until(lambda: len(said) == 1, 30)
    report.close()
    assert said == [f"{tmp_path / REPORT} could not be written: it took longer than 2 s"]
    pids = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
    assert pids and not any(Path("/proc", str(pid)).exists() for pid in pids)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; sys.exit('one\\nNo such command')", "No such command"),
        ("import os; os.kill(os.getpid(), 9)", "it ended with -9"),
        ("import sys; sys.exit(3)", "it ended with 3"),
    ],
)
def test_one_that_fails_is_said_once(
    tmp_path: Path, stands_in: Callable[[str], Path], program: str, told: str
) -> None:
    stands_in(program)
    said: list[str] = []
    report = LiveReport(tmp_path, said.append)
    report.write()
    assert wait_until(lambda: len(said) == 1, 30)
    report.close()
    assert said == [f"{tmp_path / REPORT} could not be written: {told}"]


def test_a_command_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(run: Path) -> Sequence[str]:
        return ["/no/such/program"]

    monkeypatch.setattr(module, "command", none)
    said: list[str] = []
    LiveReport(tmp_path, said.append).close()
    assert len(said) == 1 and "No such file" in said[0]


def test_a_run_that_is_killed_leaves_no_report_s_process(tmp_path: Path) -> None:
    """Of the command that is really run, which ends with its parent."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from haloforge.observe import live\n"
        "real = live.command\n"
        "def command(run):\n"
        "    python, m, module, pid, *_ = real(run)\n"
        "    code = ('import os, sys, time\\nfrom haloforge.cli import main as cli\\n'\n"
        '        \'def hang():\\n    open("pid", "w").write(str(os.getpid()))\\n\'\n'
        "        '    time.sleep(600)\\ncli.main = hang\\n'\n"
        "        'import runpy; sys.argv[1:] = [sys.argv[1], \"report\"]\\n'\n"
        '        \'runpy.run_module("haloforge.observe.child", run_name="__main__")\')\n'
        "    return [python, '-c', code, pid]\n"
        "live.command = command\n"
        "report = live.LiveReport(Path('.'), print)\n"
        "report.write()\n"
        "time.sleep(600)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    try:
        assert wait_until(lambda: (tmp_path / "pid").exists() and bool(
            (tmp_path / "pid").read_text()), 60)  # fmt: skip
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 0)
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    assert wait_until(gone, 30)
