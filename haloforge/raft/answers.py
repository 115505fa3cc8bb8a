"""What selection and the watch for collapse know of an answer: its form, and if it is trivial."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from haloforge.data.normalise import normalise
from haloforge.schema import TEST_CODE_JUDGES, Outcome, Problem
from haloforge.verify.extract import Extracted, answer_of
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import select
from haloforge.verify.trivial import is_trivial


class Answer(NamedTuple):
    """`form` is a digest of 64 bits, the same for the same program under the same problem."""

    form: int
    trivial: bool


class AnswerReader:
    """Reads samples as the verifier of `settings` does."""

    def __init__(self, problems: Sequence[Problem], settings: VerifySettings) -> None:
        self._verifier = settings.verifier
        self._own = settings.own() is not None
        self._problems = problems
        self._reads_input = [
            any(test.stdin.strip() for test in problem.tests) for problem in problems
        ]

    def read(self, sample: Mapping[str, Any], outcome: str, place: int) -> Answer:
        """The answer of a row of SAMPLE_SCHEMA to `problems[place]`, which ended as `outcome`."""
        problem = self._problems[place]
        answer = answer_of(sample, problem, self._verifier, self._own)
        if answer is None:
            return Answer(_form(problem, sample["completion"].strip()), False)
        language = self._language(problem, answer)
        form = _form(problem, normalise(answer.code, language))
        # What a function or a verifier of the user's own judges need neither read nor print.
        asked = outcome != Outcome.PASSED and problem.judge not in TEST_CODE_JUDGES
        if language is None or self._own or not asked:
            return Answer(form, False)
        return Answer(form, is_trivial(answer.code, language, self._reads_input[place]))

    def _language(self, problem: Problem, answer: Extracted) -> str | None:
        toolchain = select(self._verifier, problem.language, answer.language)
        return toolchain.language if toolchain else None


def _form(problem: Problem, text: str) -> int:
    content = f"{problem.problem_id}\0{text}".encode(errors="replace")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
