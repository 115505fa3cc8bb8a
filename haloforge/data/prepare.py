"""`data prepare`: a data set as rows that train or problems to solve, with a part held out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from haloforge.data.catalogue import Entry, entries
from haloforge.data.jsonl import read_jsonl, write_jsonl
from haloforge.data.problems import (
    DEFAULT_LANGUAGE,
    STARTER,
    in_language,
    read_problems,
    starter_problems,
)
from haloforge.data.sft import conversation, reference_conversations, to_chatml
from haloforge.errors import InputError
from haloforge.schema import Problem, digest

Purpose = Literal["sft", "problems"]


@dataclass(frozen=True)
class Prepared:
    """What was written: rows and file of the training part, and of the held-out part if any."""

    purpose: Purpose
    output: Path
    rows: int
    test_output: Path | None
    test_rows: int


def catalogue() -> list[dict[str, str]]:
    """One row a data set that `--dataset` knows by name."""
    return [_listed(entry) for entry in entries().values()]


def _listed(entry: Entry) -> dict[str, str]:
    counts = ", ".join(
        f"{split.rows if split.rows is not None else 'not counted'} {name}"
        for name, split in entry.splits.items()
    )
    listed = {
        "name": entry.name,
        "origin": str(entry.origin),
        "licence": entry.licence,
        "languages": ", ".join(entry.languages),
        "rows": f"{counts} ({entry.rows_source})" if entry.rows_source else counts,
        "uses": ", ".join(entry.uses),
        "tests": entry.tests or "none",
    }
    return listed | ({"about": entry.about} if entry.about else {})


def prepare(
    dataset: str,
    output: Path,
    purpose: Purpose | None = None,
    language: str | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    keep_all: bool = False,
) -> Prepared:
    """Writes `dataset` (`starter` or a JSONL file) to `output`, and `test.jsonl` beside it.

    `purpose` 'sft' writes ChatML rows, 'problems' writes problems; None takes what the rows are.
    Held out is `test_fraction` of a file's groups (of its problems, where there is no group), drawn
    by `seed`, and the test split of the starter set; `keep_all` holds out none. Raises InputError.
    """
    if dataset == STARTER and not Path(dataset).exists():
        purpose = purpose or "sft"
        language = language or DEFAULT_LANGUAGE
        train = [in_language(p, language) for p in starter_problems("train")]
        test = [in_language(p, language) for p in starter_problems("test")]
        rows = _rows(train, purpose, language)
    else:
        path = Path(dataset)
        answered = all("text" in row or _has_answer(row) for _, row in read_jsonl(path))
        purpose = purpose or ("sft" if answered else "problems")
        problems = read_problems(dataset, language)
        held_out = set() if keep_all else _held_out(problems, test_fraction, seed)
        train = [p for p in problems if p.problem_id not in held_out]
        test = [p for p in problems if p.problem_id in held_out]
        if purpose == "sft" and answered:
            prompts = {str(p.turns()) for p in train}
            rows = [
                row
                for number, row in read_jsonl(path)
                if str(conversation(row, f"{path}, line {number}")[:-1]) in prompts
            ]
        else:
            rows = _rows(train, purpose, language or DEFAULT_LANGUAGE)
    if not rows:
        raise InputError(f"{dataset}: nothing is left to train on; lower --test-fraction")
    written = write_jsonl(output, rows)
    if keep_all or not test:
        return Prepared(purpose, output, written, None, 0)
    test_output = output.with_name("test.jsonl")
    if test_output == output:
        raise InputError(f"{output}: the held-out part would replace it; choose another name")
    return Prepared(
        purpose, output, written, test_output, write_jsonl(test_output, map(_row, test))
    )


def _has_answer(row: dict[str, Any]) -> bool:
    messages = row.get("messages")
    return bool(messages) and isinstance(messages, list) and messages[-1].get("role") == "assistant"


def _rows(problems: list[Problem], purpose: Purpose, language: str) -> list[dict[str, Any]]:
    if purpose == "problems":
        return [_row(problem) for problem in problems]
    rows = [{"text": to_chatml(turns)} for turns in reference_conversations(problems, language)]
    if not rows:
        raise InputError(
            f"no problem has a reference in {language}, so there are no answers to learn"
        )
    return rows


def _row(problem: Problem) -> dict[str, Any]:
    return problem.model_dump(exclude_defaults=True)


def _held_out(problems: Iterable[Problem], fraction: float, seed: int) -> set[str]:
    """Ids of the problems in the held-out groups; variants of one problem stay together."""
    groups: dict[str, list[str]] = {}
    for problem in problems:
        groups.setdefault(problem.group or problem.problem_id, []).append(problem.problem_id)
    order = sorted(groups, key=lambda group: digest(seed, group))
    chosen = order[: round(fraction * len(order))]
    return {problem_id for group in chosen for problem_id in groups[group]}
