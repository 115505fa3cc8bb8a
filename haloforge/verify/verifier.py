"""The verifier: a completion in, a verdict out."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import metadata
from typing import Any

import ray

from haloforge.errors import InfraError, InputError, ResourceError
from haloforge.schema import Outcome, Problem, Verdict
from haloforge.store.cache import cache_folder
from haloforge.verify import rewards
from haloforge.verify.cache import JudgementCache, content_key
from haloforge.verify.extract import Extracted, answer_of, as_it_stands
from haloforge.verify.headers import precompile
from haloforge.verify.judges import Judgement, judge
from haloforge.verify.own import OwnJudge
from haloforge.verify.own_sources import OwnSource
from haloforge.verify.sandbox import BUBBLEWRAP, UNSAFE, Sandbox
from haloforge.verify.settings import FLEET, VerifySettings
from haloforge.verify.toolchains import (
    TOOLCHAINS,
    default_language,
    needed,
    require,
    select,
    version,
)

ATTEMPTS = 2
DIAGNOSTICS_BYTES = 4096
JUDGED_BY = {
    *("judge", "tests", "limits", "comparison", "float_tolerance", "checker"),
    *("test_code", "entry_point"),
}
"""The fields of a problem that a judgement depends on."""


def require_toolchains(verifier: str, problems: Iterable[Problem]) -> bool:
    """Whether an answer may be in C++. Raises ResourceError for a missing toolchain that `verifier`
    or a problem needs, and InputError for a problem whose language or judge has none."""
    for row in TOOLCHAINS:
        if verifier == row.name:
            require(row)
    may_be_cpp = False
    for problem in problems:
        toolchain = needed(verifier, problem)
        may_be_cpp |= toolchain is None or toolchain.language == "cpp"
    return may_be_cpp


class Verifier:
    """Judges samples against their problems.

    `problems` maps problem ids to problems, or is the Ray reference of such a dict. `own` is the
    user's own verifier where the settings name one, for machines that do not have its file. Raises
    ResourceError at once when the sandbox or a compiler that the problems need does not work here,
    and InputError for a problem in a language without a toolchain.
    """

    def __init__(
        self,
        settings: VerifySettings,
        problems: "dict[str, Problem] | ray.ObjectRef[Any]",
        own: OwnSource | None = None,
    ) -> None:
        resolved = ray.get(problems) if isinstance(problems, ray.ObjectRef) else problems
        self.problems: dict[str, Problem] = resolved
        self.settings = settings
        own = own or settings.own()
        self.own = OwnJudge(own) if own else None
        may_be_cpp = not self.own and require_toolchains(settings.verifier, self.problems.values())
        self.sandbox = Sandbox.probe(settings)
        self.cache = None
        # Without boxes a program could write to what later programs are judged by.
        if settings.cache and self.sandbox.tier != UNSAFE:
            self.cache = JudgementCache(cache_folder())
        if may_be_cpp and self.sandbox.tier == BUBBLEWRAP:
            precompile(self.sandbox, settings)

    def verify(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The row of VERDICT_SCHEMA for a row of SAMPLE_SCHEMA.

        The answer is found in `completion`, or is `code` itself where that is given; its problem is
        the one in `problem` as JSON where that is given. A failure of ours is tried once more, then
        is the outcome `infra_error`. Raises InputError for a sample of an unknown problem.
        """
        problem = self._problem(sample)
        answer = answer_of(sample, problem, self.settings.verifier, self.own is not None)
        toolchain, judgement = self._try(answer, problem)
        verdict = self._verdict(sample, problem, toolchain, judgement)
        if self.settings.raw:
            verdict["raw_outcome"] = self._raw(sample, problem, answer, judgement)
        return verdict

    def _raw(
        self,
        sample: dict[str, Any],
        problem: Problem,
        answer: Extracted | None,
        judgement: Judgement,
    ) -> str:
        """The outcome of the text as it stands; that of `answer`, without another run, where they
        are the same but for blanks at the end."""
        text = sample.get("completion")
        if text is None or (answer is not None and answer.code.rstrip() == text.rstrip()):
            return judgement.outcome.value
        wanted = default_language(self.settings.verifier, problem.language)
        if not self.own and wanted not in (None, "javascript") and text.lstrip().startswith("```"):
            return Outcome.COMPILE_ERROR.value  # no program of the others begins so
        return self._try(as_it_stands(text, wanted), problem)[1].outcome.value

    def _try(self, answer: Extracted | None, problem: Problem) -> tuple[str, Judgement]:
        """The toolchain's name and what was found, after a failure of ours in another attempt."""
        judgement = Judgement(Outcome.INFRA_ERROR)
        for _ in range(ATTEMPTS):
            try:
                return self._judge(answer, problem)
            # ResourceError: the model chose a language whose compiler is missing here.
            except (InfraError, ResourceError, OSError) as error:
                judgement = Judgement(Outcome.INFRA_ERROR, diagnostics=str(error))
        return "", judgement

    def give_up(self, sample: dict[str, Any], reason: str) -> dict[str, Any]:
        """As `verify`, for a sample that cannot be judged: the outcome is `infra_error`."""
        judgement = Judgement(Outcome.INFRA_ERROR, diagnostics=reason)
        return self._verdict(sample, self._problem(sample), "", judgement)

    def _problem(self, sample: dict[str, Any]) -> Problem:
        if sample.get("problem"):
            return Problem.model_validate_json(sample["problem"])
        problem = self.problems.get(sample["problem_id"])
        if problem is None:
            raise InputError(
                f"sample {sample['sample_id']}: problem '{sample['problem_id']}' is not in the set"
            )
        return problem

    def _verdict(
        self, sample: dict[str, Any], problem: Problem, toolchain: str, judgement: Judgement
    ) -> dict[str, Any]:
        by_tests = problem.judge == "stdio" and not self.own
        reward = rewards.reward(judgement.outcome, judgement.warnings, judgement.ran)
        return Verdict(
            sample_id=sample["sample_id"],
            problem_id=problem.problem_id,
            outcome=judgement.outcome,
            compiled=judgement.compiled,
            ran=judgement.ran,
            warnings=judgement.warnings,
            reward=reward if judgement.compiled else rewards.NO_PROGRAM,
            tests_passed=judgement.tests_passed,
            tests_total=len(problem.tests) if by_tests else judgement.tests_total,
            diagnostics=_clip(judgement.diagnostics),
            compile_ms=judgement.compile_ms,
            run_ms=judgement.run_ms,
            toolchain=toolchain,
            sandbox_tier=self.sandbox.tier,
        ).model_dump(mode="json")

    def _judge(self, answer: Extracted | None, problem: Problem) -> tuple[str, Judgement]:
        if answer is None:
            return "", Judgement(Outcome.NO_CODE)
        if problem.prelude:
            answer = replace(answer, code=problem.prelude + answer.code)
        if own := self.own:
            return own.name, self._cached(
                answer,
                [own.name],
                problem.model_dump(),  # it may look at anything
                lambda: own.judge(answer.code, problem, self.sandbox, self.settings),
            )
        toolchain = select(self.settings.verifier, problem.language, answer.language)
        if toolchain is None:
            return "", Judgement(Outcome.NO_CODE, diagnostics="code in no known language")
        name = version(toolchain)
        judged_by = [name, *toolchain.compile, *toolchain.run]
        if problem.judge == "pytest":
            judged_by.append(metadata.version("pytest"))
        return name, self._cached(
            answer,
            judged_by,
            problem.model_dump(include=JUDGED_BY),
            lambda: judge(answer, toolchain, problem, self.sandbox, self.settings),
        )

    def _cached(
        self,
        answer: Extracted,
        judged_by: list[str],
        problem: dict[str, Any],
        run: Callable[[], Judgement],
    ) -> Judgement:
        """What was judged before of the same answer, by the same judge; else what `run` finds."""
        if self.cache is None:
            return run()
        key = content_key(
            answer.code.encode(errors="replace").decode(),
            judged_by,
            problem,
            self.settings.model_dump(exclude={*FLEET, "cache", "raw", "verifier"}),
            self.sandbox.tier,
        )
        judgement = self.cache.get(key)
        if judgement is None:
            judgement = run()
            judgement = replace(judgement, diagnostics=_clip(judgement.diagnostics))
            self.cache.put(key, judgement)
        return judgement


def _clip(text: str) -> str:
    """At most 4 KiB of UTF-8, the end cut off."""
    return text.encode(errors="replace")[:DIAGNOSTICS_BYTES].decode(errors="ignore")
