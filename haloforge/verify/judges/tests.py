"""Tests that are Python code: function tests and pytest files.

They run in one box and the solution in another, joined by two pipes. What the tests expect never
enters the solution's box: it is asked for answers, which come back as plain data (see the scripts
in `haloforge/verify/function`).
"""

import json
import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from haloforge.errors import AT_FAULT, ProblemFaultError
from haloforge.schema import Outcome, Problem
from haloforge.verify.box import BUSY_FACTOR
from haloforge.verify.extract import Extracted
from haloforge.verify.function import candidate, tester
from haloforge.verify.judges.judgement import Judgement, failure, is_lasting, last_words
from haloforge.verify.judges.pytest_bundle import pytest_bundle
from haloforge.verify.launcher import script
from haloforge.verify.limits import BoxLimits, run_limits
from haloforge.verify.process import RunResult
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import Toolchain

PYTEST_TESTS = (Path(tester.__file__).parent / "pytest_tests.py").read_bytes()
TESTS_S = 1.0  # what the solution may have to wait for the tests to start
TESTS_CPU_S = 5  # the tests' own CPU time, beside as much as the solution has
TESTS_MEMORY_MB = 512  # the tests' memory, beside as much as the solution has
REPORT_KB = 4096


@dataclass
class Report:
    """What the tests' box told; see `tester.py`."""

    total: int = 0
    compiled: bool = False
    diagnostics: list[str] = field(default_factory=list)
    compile_ms: float = 0.0
    used: bool = False
    answered: bool = False
    alive: bool = False
    end: bool = False
    broken: str | None = None
    passed: int = 0
    failures: dict[Outcome, str] = field(default_factory=dict)
    """The first reason for each outcome."""

    def read(self, printed: bytes) -> "Report":
        for line in printed.split(b"\n")[:-1]:  # after the last one is what a kill cut short
            fields = json.loads(line)
            if "test" in fields:
                outcome = Outcome(fields["outcome"])
                self.passed += outcome is Outcome.PASSED
                if outcome is not Outcome.PASSED:
                    self.failures.setdefault(outcome, f"{fields['test']}: {fields['reason']}")
            for name in fields.keys() - {"test", "outcome", "reason"}:
                setattr(self, name, fields[name])
        return self


def judge_tests(
    answer: Extracted,
    toolchain: Toolchain,
    problem: Problem,
    sandbox: Sandbox,
    settings: VerifySettings,
) -> Judgement:
    """Run the problem's `test_code` against the solution, compiled and imported once.

    Compiling needs no box of its own: the solution's has yet to run any of it. The solution has
    `limits.wall_s` for all tests together. It has `ran` when it answered a test, no call
    ended a test, and it was alive at the end. Raises ProblemFaultError where the tests are.
    """
    program = answer.code.encode(errors="replace")
    limits = run_limits(settings, problem.limits)
    solution, tests = _run(program, problem, sandbox, limits, settings)
    report = Report().read(tests.stdout)
    failures = _failures(report, solution, tests)
    in_time = solution.wall_ms < limits.wall_s * 1000 / 2
    return Judgement(
        next(iter(failures), Outcome.PASSED),
        compiled=report.compiled,
        warnings=report.compiled and bool(report.diagnostics),
        ran=report.alive and report.answered and not failures.keys() - {Outcome.WRONG_ANSWER},
        tests_passed=report.passed,
        tests_total=report.total,
        diagnostics="\n".join([*filter(None, failures.values()), *report.diagnostics]),
        compile_ms=report.compile_ms,
        run_ms=solution.wall_ms,
        lasting=is_lasting(solution) and is_lasting(tests) and in_time,
    )


def _failures(report: Report, solution: RunResult, tests: RunResult) -> dict[Outcome, str]:
    """Why it is no pass, the outcome that says most first; empty for a pass."""
    if report.broken is not None:
        raise ProblemFaultError(f"{AT_FAULT}tests are at fault: {report.broken}")
    if not report.end and not report.used:
        raise ProblemFaultError(f"{AT_FAULT}tests {last_words(tests)}")
    if not report.compiled:
        reason = "" if report.diagnostics else f"compiling {last_words(solution)}"
        return {Outcome.COMPILE_ERROR: reason}
    failures = dict(sorted(report.failures.items(), key=lambda i: i[0] is Outcome.WRONG_ANSWER))
    died = failure(solution)
    if died and solution.killed:
        outcome, reason = died
        return {outcome: f"the solution {reason}", **failures}
    if not report.end:  # its answers made too much of the tests
        slow = tests.timed_out or tests.signal in (signal.SIGXCPU, signal.SIGKILL)
        outcome = Outcome.TIMEOUT if slow else Outcome.RUNTIME_ERROR
        return {outcome: f"the tests, with its answers, {last_words(tests)}", **failures}
    if died and Outcome.RUNTIME_ERROR in failures and not report.alive:
        outcome, reason = died
        failures = {outcome: f"{failures.pop(Outcome.RUNTIME_ERROR)}; it {reason}", **failures}
    if not failures and not report.used:
        raise ProblemFaultError(f"{AT_FAULT}tests are at fault: none uses the solution")
    if not failures and not report.answered:
        return {Outcome.WRONG_ANSWER: "no test got an answer from it"}
    if not failures and not (report.alive and report.passed == report.total > 0):
        return {Outcome.RUNTIME_ERROR: f"{report.passed} of {report.total} tests ran to their end"}
    return failures


def _run(
    program: bytes, problem: Problem, sandbox: Sandbox, limits: BoxLimits, settings: VerifySettings
) -> tuple[RunResult, RunResult]:
    """The solution's run and the tests'. Each box's end closes its pipes, which ends the other."""
    files = {"tests.py": (problem.test_code or "").encode()}
    if problem.judge == "pytest":
        files["pytest.zip"] = pytest_bundle(sandbox, settings)
        files["pytest_tests.py"] = PYTEST_TESTS
    cpu_s = math.ceil(limits.wall_s) + TESTS_CPU_S
    limits = replace(limits, wall_s=limits.wall_s + TESTS_S)
    patient = replace(
        limits,
        wall_s=limits.wall_s * BUSY_FACTOR + TESTS_CPU_S,
        memory_mb=limits.memory_mb + TESTS_MEMORY_MB,
        output_kb=REPORT_KB,
    )
    answer = script(candidate)
    ask = script(tester, problem.judge, problem.entry_point or "", str(cpu_s))
    with ExitStack() as boxes, ExitStack() as pipes:

        def pipe() -> tuple[int, int]:
            ends = os.pipe()
            for end in ends:
                pipes.callback(os.close, end)
            return ends

        (asked, to_ask), (answered, to_answer) = pipe(), pipe()
        streams = {candidate.REQUESTS: asked, candidate.REPLIES: to_answer}
        box = sandbox.start(answer, {candidate.SOURCE: program}, b"", limits, streams=streams)
        solution = boxes.enter_context(box)
        streams = {tester.REQUESTS: to_ask, tester.REPLIES: answered}
        tests = boxes.enter_context(sandbox.start(ask, files, b"", patient, streams=streams))
        solution.asked_by = tests
        pipes.close()  # theirs alone from here on
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(tests.wait)
            return solution.wait(), waiting.result()
