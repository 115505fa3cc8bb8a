"""Proof of the judge: a problem's own solutions must pass it."""

from collections.abc import Iterable
from typing import Any

from haloforge.schema import Problem, Verdict
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import AUTO
from haloforge.verify.verifier import Verifier


def reference_samples(
    problems: Iterable[Problem],
) -> tuple[dict[str, Problem], list[dict[str, Any]]]:
    """Each reference solution as a sample with `code`, and the problems that they answer, by id: a
    problem in each language that it has a solution in, whatever its own `language`."""
    variants = {
        f"{problem.problem_id}/{language}": problem.model_copy(update={"language": language})
        for problem in problems
        for language in problem.reference
    }
    samples = [
        {"sample_id": key, "problem_id": key, "code": problem.reference[str(problem.language)]}
        for key, problem in variants.items()
    ]
    return variants, samples


def reference_settings(settings: VerifySettings) -> VerifySettings:
    """Each reference is judged in its own language, or by the user's own verifier."""
    return settings if settings.own() else settings.model_copy(update={"verifier": AUTO})


def check_references(
    problems: Iterable[Problem], settings: VerifySettings
) -> list[tuple[str, str, Verdict]]:
    """The problem id, language and verdict of every reference solution, judged in this process."""
    variants, samples = reference_samples(problems)
    verifier = Verifier(reference_settings(settings), variants)
    return [
        (problem.problem_id, str(problem.language), Verdict(**verifier.verify(sample)))
        for problem, sample in zip(variants.values(), samples, strict=True)
    ]
