"""What every judge finds."""

import re
import signal
from dataclasses import dataclass
from itertools import pairwise

from haloforge.schema import Outcome
from haloforge.verify.process import RunResult

# What compilers and linkers say when they were refused memory or processes.
MACHINE_FAILED = re.compile(
    rb"(?i)killed signal|terminated with signal|terminated program|temporarily unavailable"
    rb"|cannot allocate|out of memory|memory exhausted|allocation failure"
)
# What a program says of its own end, above where it was: Go; Java; Rust, whose reason may be in the
# next line; Node and Python.
_END = re.compile(
    r"panic: |fatal error: |Exception in thread |thread '.*' panicked at "
    r"|(?:\w+\.)*\w*(?:Error|Exception)\b"
)


@dataclass(frozen=True)
class Judgement:
    """What a judge found: the verdict's own fields, before reward and identity. Times in ms."""

    outcome: Outcome
    compiled: bool = False
    warnings: bool = False
    ran: bool = False
    tests_passed: int = 0
    tests_total: int = 0
    diagnostics: str = ""
    compile_ms: float = 0.0
    run_ms: float = 0.0
    lasting: bool = True
    """Another run would end alike: no deadline was near, and the machine did not fail it."""


def is_lasting(result: RunResult) -> bool:
    """Whether a run says something about the program alone, and not about the machine's state."""
    killed = result.killed and not result.output_truncated
    killed = killed or result.signal == signal.SIGKILL
    return not killed and not MACHINE_FAILED.search(result.stderr)


def failure(result: RunResult) -> tuple[Outcome, str] | None:
    """The outcome of a run that ended badly, and why; None for a clean one."""
    if result.clean:
        return None
    reason = last_words(result)
    if result.timed_out:
        return Outcome.TIMEOUT, reason
    if result.output_truncated:
        return Outcome.OUTPUT_LIMIT, reason
    if result.memory_exceeded:
        return Outcome.MEMORY_LIMIT, f"ran out of memory: {reason}"
    if result.disk_full or result.signal == signal.SIGXFSZ:
        return Outcome.OUTPUT_LIMIT, f"wrote too much into files: {reason}"
    return Outcome.RUNTIME_ERROR, reason


def last_words(result: RunResult) -> str:
    """How a run that was not clean ended, with the line on standard error that tells why: the last
    where none looks like it."""
    if result.timed_out:
        return f"was stopped after {result.wall_ms / 1000:.1f} s"
    if result.output_truncated:
        return f"printed more than {len(result.stdout) // 1024} KiB"
    if result.killed:
        return "was killed over a limit of all its processes together"
    if result.signal is not None:
        name = signal.strsignal(result.signal)
        return f"died of signal {result.signal} ({name}) {_why(result.stderr)}".rstrip()
    return f"ended with status {result.exit_code} {_why(result.stderr)}".rstrip()


def _why(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    if _END.match(last):  # of several exceptions in Python, the one that ended it
        return last.strip()
    for line, following in pairwise(lines):
        if _END.match(line):
            return f"{line} {following.strip()}" if line.endswith(":") else line
    return last.strip()
