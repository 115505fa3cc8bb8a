"""Programs that read standard input and print: each test is a run in a box of its own.

Expected output never enters that box: what was printed is compared out here, on bytes, or by a
checker in another box. The exit status alone proves nothing, but one that is not 0 is a crash.
"""

import os

from haloforge.schema import Outcome, Problem
from haloforge.verify.extract import Extracted
from haloforge.verify.judges.checker import run_checker
from haloforge.verify.judges.comparison import excerpt, same
from haloforge.verify.judges.compilation import compile_answer, run_command
from haloforge.verify.judges.judgement import Judgement, failure, is_lasting
from haloforge.verify.limits import run_limits
from haloforge.verify.process import RunResult, sealed_file
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import Toolchain


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
    if built.program is None:
        return built.failed(len(problem.tests))
    run, limits = run_command(toolchain, run_limits(settings, problem.limits))
    results: list[RunResult] = []
    with os.fdopen(sealed_file(toolchain.program, built.program)) as program:  # for all boxes
        files = {toolchain.program: program.fileno()}
        for test in problem.tests:
            result = sandbox.run(run, files, test.stdin.encode(), limits, toolchain.executable)
            results.append(result)
            if result.timed_out or result.output_truncated:
                break
    passed, failures, ran, lasting = 0, dict[Outcome, str](), True, built.lasting
    right = _right(problem, results, sandbox, settings)
    for number, (test, result) in enumerate(zip(problem.tests, results, strict=False), 1):
        lasting = lasting and is_lasting(result) and result.wall_ms < limits.wall_s * 1000 / 2
        outcome, reason = judge_run(result, right[number - 1])
        ran = ran and result.clean and bool(result.stdout.strip() or not test.stdout.strip())
        passed += outcome is Outcome.PASSED
        if outcome is not Outcome.PASSED:
            failures.setdefault(outcome, f"test {number}: {reason}")
    # A crash or time-out says more than a wrong answer on another test.
    failures = dict(sorted(failures.items(), key=lambda item: item[0] is Outcome.WRONG_ANSWER))
    return Judgement(
        next(iter(failures), Outcome.PASSED),
        compiled=True,
        warnings=built.warnings,
        ran=ran,
        tests_passed=passed,
        tests_total=len(problem.tests),
        diagnostics="\n".join([*failures.values(), *built.diagnostics.splitlines()]),
        compile_ms=built.wall_ms,
        run_ms=sum(result.wall_ms for result in results),
        lasting=lasting,
    )


def _right(
    problem: Problem, results: list[RunResult], sandbox: Sandbox, settings: VerifySettings
) -> list[bool]:
    """Whether each run printed what it should, by the problem's checker or comparison."""
    pairs = list(zip(problem.tests, results, strict=False))
    if problem.checker is None:
        return [
            same(result.stdout, test.stdout.encode(), problem.comparison, problem.float_tolerance)
            for test, result in pairs
        ]
    clean = [(test, result.stdout) for test, result in pairs if result.clean]
    verdicts = iter(run_checker(problem.checker, clean, sandbox, settings))
    return [result.clean and next(verdicts) for result in results]


def judge_run(result: RunResult, right: bool) -> tuple[Outcome, str]:
    """The outcome of one test, and why it is no pass. `right` is about what it printed alone."""
    if failed := failure(result):
        return failed
    if right:
        return Outcome.PASSED, ""
    return Outcome.WRONG_ANSWER, f"printed {excerpt(result.stdout)}"
