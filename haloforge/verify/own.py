"""Verifiers of your own: a class with one method, or a command.

    from haloforge.verify.own import BoxedRunner, Judgement, Outcome, Problem

    class Prints42:
        def judge(self, code: str, problem: Problem, sandbox: BoxedRunner) -> Judgement:
            result = sandbox.run(["/bin/sh", "answer.sh"], {"answer.sh": code.encode()})
            right = result.clean and result.stdout == b"42\\n"
            return Judgement(Outcome.PASSED if right else Outcome.WRONG_ANSWER)

The class is the user's code and is trusted: it runs in the verifier actor, once made there, and
from more than one thread while a slow program runs. The answer is not: `sandbox` is the one way to
run it. The file is sent as it is, so it can import installed packages but not files beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from haloforge.errors import HaloforgeError, InfraError
from haloforge.schema import Outcome, Problem
from haloforge.verify.extract import guess_language
from haloforge.verify.judges.judgement import Judgement, failure, is_lasting
from haloforge.verify.limits import BoxLimits, compile_limits, run_limits
from haloforge.verify.own_sources import FILE, OwnSource
from haloforge.verify.process import RunResult
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import AUTO, select

__all__ = ["BoxedRunner", "Judgement", "Outcome", "OwnVerifier", "Problem", "RunResult"]

NO_FILES: Mapping[str, bytes] = MappingProxyType({})
# What a command's exit status says, beside 0. 126 and 127 are a shell's words for "cannot be run":
# our fault.
STATUSES: dict[int | None, Outcome] = {
    1: Outcome.WRONG_ANSWER,
    2: Outcome.COMPILE_ERROR,
}
NOT_RUN = (126, 127)
COMPILED = {
    Outcome.COMPILED,
    Outcome.COMPILED_WITH_WARNINGS,
    Outcome.WRONG_ANSWER,
    Outcome.PASSED,
}


class OwnVerifier(Protocol):
    """What a verifier of one's own is."""

    def judge(self, code: str, problem: Problem, sandbox: "BoxedRunner") -> Judgement:
        """How `code`, the source found in an answer to `problem`, ended. An exception is a failure
        of the verifier: tried once more, then `infra_error`."""
        ...


class BoxedRunner:
    """Runs commands for one judgement, each in a fresh box; adds up what they took."""

    def __init__(self, sandbox: Sandbox, settings: VerifySettings, problem: Problem) -> None:
        self.settings = settings
        self.compile_ms = self.run_ms = 0.0
        self.lasting = True
        self._sandbox, self._problem = sandbox, problem

    def run(
        self,
        argv: Sequence[str],
        files: Mapping[str, bytes] = NO_FILES,
        stdin: bytes = b"",
        wall_s: float | None = None,
        memory_mb: int | None = None,
        processes: bool = False,
    ) -> RunResult:
        """Runs `argv` in a working folder that holds `files`.

        `wall_s` and `memory_mb` stand in for the problem's limits, else the settings' for a run.
        `processes` lets it start some; memory is that of all together.
        """
        given = {"wall_s": wall_s, "memory_mb": memory_mb}
        own = self._problem.limits.model_copy(update={k: v for k, v in given.items() if v})
        limits = run_limits(self.settings, own)
        result = self._boxed(argv, files, stdin, replace(limits, single_process=not processes))
        self.run_ms += result.wall_ms
        return result

    def compile(self, argv: Sequence[str], files: Mapping[str, bytes]) -> RunResult:
        """Runs a compiler under the settings' limits of compilation; it may start processes. The
        program is what it prints on standard output."""
        result = self._boxed(argv, files, b"", compile_limits(self.settings))
        self.compile_ms += result.wall_ms
        return result

    def _boxed(
        self, argv: Sequence[str], files: Mapping[str, bytes], stdin: bytes, limits: BoxLimits
    ) -> RunResult:
        result = self._sandbox.run(argv, files, stdin, limits)
        # What was near its deadline may end otherwise next time.
        in_time = result.wall_ms < limits.wall_s * 1000 / 2
        self.lasting = self.lasting and is_lasting(result) and in_time
        return result


class CommandVerifier:
    """A command whose exit status is the verdict: 0 passed, 1 wrong answer, 2 does not compile.

    Any other status, and death by a signal, is a run-time error; over a limit of its box is the
    outcome of that limit; that it cannot be run (126, 127) is a failure of ours. It may start
    processes, and has the time and memory of a compilation and a run. What this does not stop: an
    answer that the command runs shares the command's box, can write to its files, and so choose the
    verdict. To run answers, write a class.
    """

    def __init__(self, source: OwnSource) -> None:
        self._source = source

    def judge(self, code: str, problem: Problem, sandbox: BoxedRunner) -> Judgement:
        toolchain = select(AUTO, problem.language, guess_language(code))
        name = toolchain.source if toolchain else "answer.txt"
        argv = [word.replace(FILE, name) for word in self._source.argv]
        files = {**self._source.files, name: code.encode(errors="replace")}
        settings, own = sandbox.settings, problem.limits
        result = sandbox.run(
            argv,
            files,
            wall_s=settings.compile_wall_s + (own.wall_s or settings.run_wall_s),
            memory_mb=max(settings.compile_memory_mb, own.memory_mb or settings.run_memory_mb),
            processes=True,
        )
        told = (result.stderr + result.stdout).decode(errors="replace")
        if result.exit_code in NOT_RUN:
            raise InfraError(f"the command could not be run: {told.strip() or argv[0]}")
        outcome, _ = failure(result) or (Outcome.PASSED, "")
        if outcome is Outcome.RUNTIME_ERROR:
            outcome = STATUSES.get(result.exit_code, outcome)
        return Judgement(outcome, diagnostics=told)


class OwnJudge:
    """A verifier of the user's own, loaded on the machine that judges.

    `name` names it in verdicts. Raises InputError as `OwnSource.load` does.
    """

    def __init__(self, source: OwnSource) -> None:
        self.name = source.name
        self._verifier: OwnVerifier = CommandVerifier(source) if source.argv else source.load()()

    def judge(
        self, code: str, problem: Problem, sandbox: Sandbox, settings: VerifySettings
    ) -> Judgement:
        """What the verifier finds, with times and lastingness as its boxes had them.

        Raises InfraError where it fails or returns something else.
        """
        boxed = BoxedRunner(sandbox, settings, problem)
        try:
            found = self._verifier.judge(code, problem, boxed)
        except HaloforgeError:
            raise
        except Exception as error:  # it may raise anything, which says nothing of the answer
            raise InfraError(f"verifier {self.name}: {type(error).__name__}: {error}") from error
        if not isinstance(found, Judgement) or found.outcome not in set(Outcome):
            raise InfraError(f"verifier {self.name}: judge() returned {found!r}, not a Judgement")
        outcome = Outcome(found.outcome)
        return replace(
            found,
            outcome=outcome,
            # Of what failed otherwise it must be said whether it was compiled.
            compiled=found.compiled or outcome in COMPILED,
            warnings=found.warnings or outcome is Outcome.COMPILED_WITH_WARNINGS,
            ran=found.ran or outcome is Outcome.PASSED,
            compile_ms=boxed.compile_ms,
            run_ms=boxed.run_ms,
            lasting=found.lasting and boxed.lasting,
        )
