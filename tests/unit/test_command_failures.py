"""What a machine or Ray does to a command is one line and an exit code, no traceback."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from haloforge.cli import main as command
from haloforge.errors import InfraError, InputError

DISK_FULL = OSError(28, "No space left on device", "runs/raft/cycle_1/samples/000001.parquet")


@pytest.fixture(autouse=True)
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in this process, whatever other tests had."""
    from haloforge import session
    from haloforge.observe.log import detach

    detach()
    monkeypatch.setattr(session, "_logs", [])


def told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """The exit code and what is printed where a command raises `error`."""

    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(command, "cli", fail)
    monkeypatch.setattr(command, "_quiet_libraries", lambda: None)
    with pytest.raises(SystemExit) as caught:
        command.main()
    return int(str(caught.value.code)), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DISK_FULL, "runs/raft/cycle_1/samples/000001.parquet: No space left on device"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (ConnectionError("no Ray at 10.0.0.1\nlook at its logs"), "no Ray at 10.0.0.1"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_of_the_system_is_one_line(
    error: OSError,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(error, monkeypatch, capsys) == (3, f"halo-forge: error: {expected}\n")


def test_an_error_of_ray_s_is_its_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray.exceptions import GetTimeoutError, RaySystemError, RayTaskError

    timeout = GetTimeoutError("Get timed out")  # a TimeoutError, and so an OSError too
    assert told(timeout, monkeypatch, capsys) == (4, "halo-forge: error: Get timed out\n")
    system = RaySystemError("traceback:\n  File x\nValueError: it broke")
    assert told(system, monkeypatch, capsys)[0] == 4
    text = "Traceback:\n  File x\nOSError: [Errno 28] No space left on device"
    of_task = RayTaskError("encode", text, DISK_FULL).as_instanceof_cause()
    expected = "halo-forge: error: OSError: [Errno 28] No space left on device\n"
    assert told(of_task, monkeypatch, capsys) == (4, expected)
    of_ours = RayTaskError("select", "Traceback:\n  File x", InputError("row 3: no field 'text'"))
    assert told(of_ours.as_instanceof_cause(), monkeypatch, capsys) == (
        2,
        "halo-forge: error: row 3: no field 'text'\n",
    )


@pytest.mark.parametrize("error", [InfraError("no engine is left"), InputError("no room")])
def test_the_logs_of_a_run_are_named_with_its_last_warnings(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from haloforge import session
    from haloforge.observe.log import ENDED, LOGGER, attach, detach

    monkeypatch.setattr(session, "_logs", [Path("/tmp/ray/earlier"), Path("/tmp/ray/logs")])
    log = attach(20, print)
    try:
        log.begin(tmp_path, "raft", 1)
        LOGGER.warning("no verdict: \x1b[2J", extra={"sample_id": "s1"})
        LOGGER.error("InfraError: no engine is left", extra={ENDED: error})
        log.end()
        _, lines = told(error, monkeypatch, capsys)
    finally:
        detach()
    expected = [
        f"halo-forge: error: {error}",
        "its last warnings and errors:",
        "  warning: no verdict: \\x1b[2J (sample s1)",
        f"log: {tmp_path / 'logs' / 'raft.jsonl'}",
    ]
    if isinstance(error, InfraError):  # the user's own mistakes are in no log of Ray's
        expected.append("logs of Ray and of the engines: /tmp/ray/logs")
    assert lines.splitlines() == expected


def test_what_nobody_expected_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError):
        told(ZeroDivisionError(), monkeypatch, capsys)


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "haloforge", "--help"]
    run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, "")


def test_help_imports_no_ray() -> None:
    program = "import sys; from haloforge.cli import main; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
