"""The judges: each compiles an answer once and says how it ended.

Expected output never enters a box: the program's output is compared out here, on bytes. The exit
status alone proves nothing, but one that is not 0 is a crash.
"""

import re
import signal
from dataclasses import dataclass, replace

from haloforge.schema import Outcome, Problem, Test
from haloforge.verify.extract import Extracted
from haloforge.verify.process import RunResult
from haloforge.verify.rewards import silences_warnings
from haloforge.verify.sandbox import Sandbox, compile_limits, run_limits
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import Toolchain

# What compilers and linkers say when they were refused memory or processes.
MACHINE_FAILED = re.compile(
    rb"(?i)killed signal|terminated with signal|terminated program|temporarily unavailable"
    rb"|cannot allocate|out of memory|memory exhausted|allocation failure"
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


@dataclass(frozen=True)
class Compilation:
    """A finished compilation; `program` is None when there is none to run."""

    program: bytes | None
    warnings: bool
    diagnostics: str
    wall_ms: float
    lasting: bool


def compile_answer(
    answer: Extracted, toolchain: Toolchain, sandbox: Sandbox, settings: VerifySettings
) -> Compilation:
    """Compile in a box of its own. Raises InfraError when the box fails."""
    source = answer.code.encode(errors="replace")
    result = sandbox.run(
        toolchain.compile,
        {toolchain.source: source},
        b"",
        compile_limits(settings),
        toolchain.links,
    )
    diagnostics = result.stderr.decode(errors="replace")
    if result.timed_out:
        diagnostics = f"compiling took longer than {settings.compile_wall_s:g} s\n{diagnostics}"
    elif result.output_truncated:
        diagnostics = f"the program is larger than {settings.file_mb} MiB\n{diagnostics}"
    elif not result.clean and not diagnostics:
        diagnostics = _end(result)
    program = (source if toolchain.interpreted else result.stdout) if result.clean else None
    warnings = toolchain.warned(result) or silences_warnings(answer.code, toolchain.language)
    return Compilation(program, warnings, diagnostics, result.wall_ms, _lasting(result))


def judge_compile(
    answer: Extracted, toolchain: Toolchain, sandbox: Sandbox, settings: VerifySettings
) -> Judgement:
    """Whether an answer compiles, and cleanly. Says nothing about what the program does."""
    built = compile_answer(answer, toolchain, sandbox, settings)
    if built.program is None:
        outcome = Outcome.COMPILE_ERROR
    else:
        outcome = Outcome.COMPILED_WITH_WARNINGS if built.warnings else Outcome.COMPILED
    return Judgement(
        outcome,
        compiled=built.program is not None,
        warnings=built.warnings,
        diagnostics=built.diagnostics,
        compile_ms=built.wall_ms,
        lasting=built.lasting,
    )


def judge_stdio(
    answer: Extracted,
    toolchain: Toolchain,
    problem: Problem,
    sandbox: Sandbox,
    settings: VerifySettings,
) -> Judgement:
    """Run the program on every test, a fresh box each, and compare what it prints.

    A time-out or too much output ends the judging: later tests count as not passed. A program has
    `ran` when every test ended by itself with status 0 and none that asks for output got nothing.
    """
    built = compile_answer(answer, toolchain, sandbox, settings)
    total = len(problem.tests)
    if built.program is None:
        return Judgement(
            Outcome.COMPILE_ERROR,
            tests_total=total,
            diagnostics=built.diagnostics,
            compile_ms=built.wall_ms,
            lasting=built.lasting,
        )
    limits = run_limits(settings, problem.limits.wall_s, problem.limits.memory_mb)
    run = [part.replace("MEMORY_MB", str(limits.memory_mb)) for part in toolchain.run]
    limits = replace(limits, memory_mb=limits.memory_mb + toolchain.reserve_mb)
    passed, run_ms, failures, ran, lasting = 0, 0.0, dict[Outcome, str](), True, True
    for number, test in enumerate(problem.tests, 1):
        result = sandbox.run(
            run, {toolchain.program: built.program}, test.stdin.encode(), limits, toolchain.links
        )
        run_ms += result.wall_ms
        lasting = lasting and _lasting(result) and result.wall_ms < limits.wall_s * 1000 / 2
        outcome, reason = judge_run(result, test)
        ran = ran and result.clean and bool(result.stdout.strip() or not test.stdout.strip())
        passed += outcome is Outcome.PASSED
        if outcome is not Outcome.PASSED:
            failures.setdefault(outcome, f"test {number}: {reason}")
        if result.timed_out or result.output_truncated:
            break
    # A crash or time-out says more than a wrong answer on another test.
    failures = dict(sorted(failures.items(), key=lambda item: item[0] is Outcome.WRONG_ANSWER))
    return Judgement(
        next(iter(failures), Outcome.PASSED),
        compiled=True,
        warnings=built.warnings,
        ran=ran,
        tests_passed=passed,
        tests_total=total,
        diagnostics="\n".join([*failures.values(), *built.diagnostics.splitlines()]),
        compile_ms=built.wall_ms,
        run_ms=run_ms,
        lasting=built.lasting and lasting,
    )


def judge_run(result: RunResult, test: Test) -> tuple[Outcome, str]:
    """The outcome of one test, and why it is no pass."""
    if result.timed_out:
        return Outcome.TIMEOUT, f"stopped after {result.wall_ms / 1000:.1f} s"
    if result.output_truncated:
        return Outcome.OUTPUT_LIMIT, f"printed more than {len(result.stdout) // 1024} KiB"
    if not result.clean:
        return Outcome.RUNTIME_ERROR, _end(result)
    if same_output(result.stdout, test.stdout.encode()):
        return Outcome.PASSED, ""
    return Outcome.WRONG_ANSWER, f"printed {_excerpt(result.stdout)}"


def same_output(printed: bytes, expected: bytes) -> bool:
    """Equal line by line, but for white space at the ends of lines and empty lines at the end."""
    return _lines(printed) == _lines(expected)


def _lasting(result: RunResult) -> bool:
    """Whether a run says something about the program alone, and not about the machine's state."""
    killed = result.timed_out or result.signal == signal.SIGKILL
    return not killed and not MACHINE_FAILED.search(result.stderr)


def _lines(text: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _end(result: RunResult) -> str:
    if result.signal is not None:
        return f"died of signal {result.signal}"
    tail = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"ended with status {result.exit_code} {''.join(tail)}".rstrip()


def _excerpt(printed: bytes) -> str:
    text = printed[:200].decode(errors="replace")
    return repr(text) + ("..." if len(printed) > 200 else "")
