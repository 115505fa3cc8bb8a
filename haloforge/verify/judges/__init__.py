"""The judges: each compiles an answer once and says how it ended."""

from haloforge.schema import Problem
from haloforge.verify.extract import Extracted
from haloforge.verify.judges.compilation import judge_compile
from haloforge.verify.judges.judgement import Judgement
from haloforge.verify.judges.program import judge_program
from haloforge.verify.judges.stdio import judge_stdio
from haloforge.verify.judges.tests import judge_tests
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import Toolchain

__all__ = ["Judgement", "judge"]


def judge(
    answer: Extracted,
    toolchain: Toolchain,
    problem: Problem,
    sandbox: Sandbox,
    settings: VerifySettings,
) -> Judgement:
    """Judge an answer as its problem asks. Raises InfraError for failures that are not its own."""
    if problem.judge == "compile" or not toolchain.run:
        return judge_compile(answer, toolchain, sandbox, settings)
    judged_by = {"stdio": judge_stdio, "program": judge_program}.get(problem.judge, judge_tests)
    return judged_by(answer, toolchain, problem, sandbox, settings)
