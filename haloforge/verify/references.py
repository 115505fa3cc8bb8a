"""Proof of the judge: a problem's own solutions must pass it."""

from collections.abc import Iterable

from haloforge.schema import Problem, Verdict
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import AUTO
from haloforge.verify.verifier import Verifier

FENCE = "~" * 12  # longer than any that a solution may print


def check_references(
    problems: Iterable[Problem], settings: VerifySettings
) -> list[tuple[str, str, Verdict]]:
    """The problem id, language and verdict of every reference solution.

    Each is judged in its own language, whatever the problem's `language` and `settings.verifier`.
    """
    variants = {
        f"{problem.problem_id}/{language}": problem.model_copy(update={"language": language})
        for problem in problems
        for language in problem.reference
    }
    verifier = Verifier(settings.model_copy(update={"verifier": AUTO}), variants)
    verdicts = []
    for key, problem in variants.items():
        language = str(problem.language)
        completion = f"{FENCE}{language}\n{problem.reference[language]}\n{FENCE}"
        sample = {"sample_id": key, "problem_id": key, "completion": completion}
        verdicts.append((problem.problem_id, language, Verdict(**verifier.verify(sample))))
    return verdicts
