"""Problems' own solutions against their own tests, by the fleet that judges samples."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from pydantic import ValidationError

from haloforge.data.jsonl import first_fault, json_object
from haloforge.data.problems import parse_problem
from haloforge.data.streams import read_file
from haloforge.data.validate.found import Found
from haloforge.data.validate.rows import Kind
from haloforge.errors import AT_FAULT
from haloforge.sampling import PASS_ROWS, JudgedRows, in_passes, judged_rows
from haloforge.schema import CODE_JUDGES, Outcome, Problem
from haloforge.session import Session
from haloforge.verify.references import reference_settings
from haloforge.verify.stored import StoredSamples
from haloforge.verify.toolchains import language_of

_HOLDS = {Outcome.PASSED, Outcome.COMPILED, Outcome.COMPILED_WITH_WARNINGS}
"""A reference that has tests to pass never ends as one that compiled."""


Told = Callable[[Kind, int, str], None]
"""Takes what is found against a row, by its number, and why."""


def judge_references(session: Session, files: Sequence[str], found: Found) -> int:
    """Judges the references of all rows that are good so far, notes in `found` which fail, and
    returns how many there were."""
    counts = np.where(found.bad, 0, found.facts["references"]).astype(np.int64)
    return judge_rows(session, files, counts, found.judge)


def judge_rows(
    session: Session, files: Sequence[str], counts: npt.NDArray[np.int64], told: Told
) -> int:
    """Judges the references of the rows of `files`, of each as many as `counts` says (0: it is left
    out), and returns how many there were. Problems are read as they are judged, none is held; what
    was under way where a process died is judged again."""
    total = int(counts.sum())
    if not total:
        return 0
    settings = reference_settings(session.settings.verify)
    own = settings.own() is not None
    left = counts.copy()
    under_way: dict[int, set[str]] = {}  # of a row, the languages that are judged

    def pass_over() -> JudgedRows:
        fleet, wanted = session.fleet, _first(left > 0, counts)
        stored = StoredSamples(partial(_samples, tuple(files), wanted, own), fleet.max_actors)
        for each in judged_rows(settings, fleet, stored.dataset(), ray.put({}), "references"):
            stored.judged()
            yield each

    with session.report.stage("references", total, "solutions") as stage:
        for sample, verdict in in_passes(session, "references", lambda: int(left.sum()), pass_over):
            row, language = sample["index"], sample["sample_id"].partition("/")[2]
            if not left[row] or language in under_way.get(row, ()):
                continue
            seen = under_way.setdefault(row, set())
            seen.add(language)
            left[row] -= 1
            stage.advance()
            if not left[row]:
                del under_way[row]
            if (fault := _fault(sample, verdict)) is not None:
                kind, why = fault
                name = f"problem {verdict['problem_id']}, reference in {language}"
                told(kind, row, f"{name}: {why}")
    return total


def _first(left: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which rows are judged in one pass: of those `left` the first, of PASS_ROWS references."""
    rows = np.flatnonzero(left)
    rows = rows[: max(1, int(np.searchsorted(counts[rows].cumsum(), PASS_ROWS, "right")))]
    wanted = np.zeros(rows[-1] + 1, np.bool_)
    wanted[rows] = True
    return wanted


def _fault(sample: dict[str, Any], verdict: dict[str, Any]) -> tuple[Kind, str] | None:
    """What a verdict says against a reference, or why it says nothing; None where it holds."""
    if sample["completion"] is not None:
        return Kind.UNJUDGED, sample["completion"]
    outcome = Outcome(verdict["outcome"])
    if outcome in _HOLDS:
        return None
    why = "".join(verdict["diagnostics"].splitlines()[:1])
    if outcome is Outcome.INFRA_ERROR:
        # Not ours, where the row's tests or checker cannot judge anything.
        kind = Kind.REFERENCE if why.startswith(AT_FAULT) else Kind.UNJUDGED
        return kind, why if kind is Kind.REFERENCE else f"{outcome} ({why})"
    return Kind.REFERENCE, f"{outcome} ({why})" if why else str(outcome)


def _samples(
    files: Sequence[str], wanted: npt.NDArray[np.bool_], own: bool
) -> Iterator[dict[str, Any]]:
    """The references of the rows that are `wanted`, rows of STORED_SCHEMA; `index` is the row's.
    One that cannot be judged is a sample without code, whose `completion` says why. A verifier of
    the user's `own` judges any language."""
    rows = chain.from_iterable(read_file(file) for file in files)
    for number, (asked, (place, line)) in enumerate(zip(wanted, rows, strict=False)):
        if not asked:
            continue
        row = json_object(line, place)
        problem = parse_problem({k: v for k, v in row.items() if v is not None}, place)
        for language, code in problem.reference.items():
            variant = variant_in(problem, language, own)
            refused = variant if isinstance(variant, str) else None
            judged = problem if isinstance(variant, str) else variant
            yield {
                "sample_id": f"{number}/{language}",
                "problem_id": problem.problem_id,
                "index": number,
                "completion": refused,
                "code": code if refused is None else "",
                "problem": judged.model_dump_json(exclude={"reference"}, exclude_defaults=True),
            }


def variant_in(problem: Problem, language: str, own: bool) -> Problem | str:
    """`problem` to be answered in `language`, or why a reference in it cannot be judged."""
    known = language_of(language)
    if not own:
        if known is None:
            return f"no toolchain for language '{language}'"
        if problem.judge in CODE_JUDGES and known != "python":
            return f"judge '{problem.judge}' is for Python"
        if problem.judge == "program" and known != language_of(problem.language or ""):
            return f"its tests are in {problem.language}"
    fields = problem.model_dump(exclude_unset=True) | {"language": known or language}
    try:
        return Problem.model_validate(fields)
    except ValidationError as error:
        return first_fault(error)
