"""Compiling an answer once, and the judge that asks for no more."""

from dataclasses import dataclass, replace

from haloforge.schema import Outcome
from haloforge.verify.extract import Extracted
from haloforge.verify.judges.judgement import Judgement, is_lasting, last_words
from haloforge.verify.limits import BoxLimits, compile_limits
from haloforge.verify.rewards import silences_warnings
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import Toolchain


@dataclass(frozen=True)
class Compilation:
    """A finished compilation; `program` is None when there is none to run."""

    program: bytes | None
    warnings: bool
    diagnostics: str
    wall_ms: float
    lasting: bool

    def failed(self, tests_total: int) -> Judgement:
        """The judgement of tests that had no program to run."""
        return Judgement(
            Outcome.COMPILE_ERROR,
            tests_total=tests_total,
            diagnostics=self.diagnostics,
            compile_ms=self.wall_ms,
            lasting=self.lasting,
        )


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
        toolchain.executable,
    )
    diagnostics = result.stderr.decode(errors="replace")
    if result.timed_out:
        diagnostics = f"compiling took longer than {settings.compile_wall_s:g} s\n{diagnostics}"
    elif result.memory_exceeded and result.exit_code is None:
        diagnostics = f"compiling took more than {settings.compile_memory_mb} MiB\n{diagnostics}"
    elif result.output_truncated:
        diagnostics = f"the program is larger than {settings.file_mb} MiB\n{diagnostics}"
    elif not result.clean and not diagnostics:
        diagnostics = last_words(result)
    program = (source if toolchain.interpreted else result.stdout) if result.clean else None
    warnings = toolchain.warned(result) or silences_warnings(answer.code, toolchain.language)
    return Compilation(program, warnings, diagnostics, result.wall_ms, is_lasting(result))


def run_command(toolchain: Toolchain, limits: BoxLimits) -> tuple[list[str], BoxLimits]:
    """How a program of the toolchain is started, and the limits of its box: the given ones, with
    the address space that its runtime takes."""
    command = [part.replace("MEMORY_MB", str(limits.memory_mb)) for part in toolchain.run]
    return command, replace(limits, memory_mb=limits.memory_mb + toolchain.reserve_mb)


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
