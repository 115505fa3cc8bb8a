"""The verifier: a completion in, a verdict out."""

import json
from dataclasses import replace
from typing import Any

import ray

from haloforge.errors import InfraError, InputError, ResourceError
from haloforge.schema import Outcome, Problem, Verdict
from haloforge.store.cache import cache_folder
from haloforge.verify import rewards
from haloforge.verify.cache import JudgementCache, content_key
from haloforge.verify.extract import Extracted, extract
from haloforge.verify.headers import precompile
from haloforge.verify.judges import Judgement, judge_compile, judge_stdio
from haloforge.verify.sandbox import BUBBLEWRAP, Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import (
    AUTO,
    TOOLCHAINS,
    Toolchain,
    default_language,
    language_of,
    languages,
    require,
    select,
    version,
)

ATTEMPTS = 2
DIAGNOSTICS_BYTES = 4096


class Verifier:
    """Judges samples against their problems. Also the callable of a Ray Data actor pool.

    `problems` maps problem ids to problems, or is the Ray reference of such a dict. Raises
    ResourceError at once when the sandbox or a compiler that the problems need does not work here,
    and InputError for a problem in a language without a toolchain.
    """

    def __init__(
        self, settings: VerifySettings, problems: "dict[str, Problem] | ray.ObjectRef[Any]"
    ) -> None:
        resolved = ray.get(problems) if isinstance(problems, ray.ObjectRef) else problems
        self.problems: dict[str, Problem] = resolved
        self.settings = settings
        for row in TOOLCHAINS:
            if settings.verifier == row.name:
                require(row)
        may_be_cpp = False
        for problem in self.problems.values():
            if settings.verifier == AUTO and problem.language and not language_of(problem.language):
                raise InputError(
                    f"problem {problem.problem_id}: no toolchain for language "
                    f"'{problem.language}'; known: {', '.join(languages())}"
                )
            if needed := select(settings.verifier, problem.language, None):
                require(needed)
            may_be_cpp |= needed is None or needed.language == "cpp"
        self.sandbox = Sandbox.probe(settings)
        self.cache = None
        # Without boxes a program could write to what later programs are judged by.
        if self.sandbox.tier == BUBBLEWRAP:
            if settings.cache:
                self.cache = JudgementCache(cache_folder())
            if may_be_cpp:
                precompile(self.sandbox, settings)

    def verify(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The row of VERDICT_SCHEMA for a row of SAMPLE_SCHEMA.

        A failure of ours is tried once more, then is the outcome `infra_error`. Raises InputError
        for a sample of an unknown problem.
        """
        problem = self.problems.get(sample["problem_id"])
        if problem is None:
            raise InputError(
                f"sample {sample['sample_id']}: problem '{sample['problem_id']}' is not in the set"
            )
        toolchain, judgement = "", Judgement(Outcome.INFRA_ERROR)
        for _ in range(ATTEMPTS):
            try:
                toolchain, judgement = self._judge(sample["completion"], problem)
                break
            # ResourceError: the model chose a language whose compiler is missing here.
            except (InfraError, ResourceError, OSError) as error:
                judgement = Judgement(Outcome.INFRA_ERROR, diagnostics=str(error))
        return Verdict(
            sample_id=sample["sample_id"],
            problem_id=problem.problem_id,
            outcome=judgement.outcome,
            compiled=judgement.compiled,
            ran=judgement.ran,
            warnings=judgement.warnings,
            reward=rewards.reward(judgement.outcome, judgement.warnings, judgement.ran),
            tests_passed=judgement.tests_passed,
            tests_total=len(problem.tests) if problem.judge == "stdio" else 0,
            diagnostics=_clip(judgement.diagnostics),
            compile_ms=judgement.compile_ms,
            run_ms=judgement.run_ms,
            toolchain=toolchain,
            sandbox_tier=self.sandbox.tier,
        ).model_dump(mode="json")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with a column `verdict`: the verdict as JSON, whose type no block can mistake."""
        return {**row, "verdict": json.dumps(self.verify(row))}

    def _judge(self, completion: str, problem: Problem) -> tuple[str, Judgement]:
        verifier = self.settings.verifier
        answer = extract(completion, default_language(verifier, problem.language))
        if answer is None:
            return "", Judgement(Outcome.NO_CODE)
        toolchain = select(verifier, problem.language, answer.language)
        if toolchain is None:
            return "", Judgement(Outcome.NO_CODE, diagnostics="code in no known language")
        name = version(toolchain)
        if self.cache is None:
            return name, self._run(answer, toolchain, problem)
        key = content_key(
            answer.code.encode(errors="replace").decode(),
            [name, *toolchain.compile, *toolchain.run],
            problem.model_dump(include={"judge", "tests", "limits"}),
            self.settings.model_dump(exclude={"actors", "cache", "verifier"}),
            self.sandbox.tier,
        )
        judgement = self.cache.get(key)
        if judgement is None:
            judgement = self._run(answer, toolchain, problem)
            judgement = replace(judgement, diagnostics=_clip(judgement.diagnostics))
            self.cache.put(key, judgement)
        return name, judgement

    def _run(self, answer: Extracted, toolchain: Toolchain, problem: Problem) -> Judgement:
        if problem.judge == "compile" or not toolchain.run:
            return judge_compile(answer, toolchain, self.sandbox, self.settings)
        return judge_stdio(answer, toolchain, problem, self.sandbox, self.settings)


def _clip(text: str) -> str:
    """At most 4 KiB of UTF-8, the end cut off."""
    return text.encode(errors="replace")[:DIAGNOSTICS_BYTES].decode(errors="ignore")
