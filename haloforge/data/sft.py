"""Rows for supervised fine-tuning: conversations that end with the answer to learn."""

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from haloforge.data.chat import ROLES, parse_chatml
from haloforge.data.jsonl import JsonLines
from haloforge.data.problems import (
    DEFAULT_LANGUAGE,
    LANGUAGES,
    STARTER,
    fixed_subset,
    in_language,
    read_problems,
)
from haloforge.errors import InputError
from haloforge.schema import Message, Problem, digest
from haloforge.store.storage import local_path

_T = TypeVar("_T")


def read_sft(
    source: str,
    language: str | None = None,
    system: str | None = None,
    difficulty: Collection[str] = (),
    limit: int | None = None,
) -> Sequence[list[Message]]:
    """The conversations in `source`: `starter`, or a JSONL file with `text` or `messages`.

    Those of a file are read where they are asked for, so that its size does not matter. Each ends
    with an assistant's turn; those without a system prompt begin with `system` if that is given, as
    sampling does. `difficulty` takes those of the starter set only, `limit` that many of the
    conversations, the same ones each time. Raises InputError naming file, line and field.
    """
    head: list[Message] = [{"role": "system", "content": system}] if system else []
    if source == STARTER and not Path(source).exists():
        asked = language or DEFAULT_LANGUAGE
        problems = read_problems(STARTER, language, difficulty=difficulty)
        solved = [problem for problem in problems if asked in problem.reference]
        few = fixed_subset(solved, limit, lambda problem: problem.problem_id)
        return [_begun(row, head) for row in reference_conversations(few, asked)]
    lines = JsonLines(local_path(source))
    for index, row in enumerate(lines):
        conversation(row, lines.place(index))
    rows = View(lines, lambda index: conversation(lines[index], lines.place(index)))
    if limit is not None:
        return [_begun(row, head) for row in fixed_subset(rows, limit, str)]
    return View(rows, lambda index: _begun(rows[index], head))


class View(Sequence[_T]):
    """Rows that are made where they are asked for: as many as `rows`, each by its place there."""

    def __init__(self, rows: Sequence[Any], row: Callable[[int], _T]) -> None:
        self._rows, self._row = rows, row

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> list[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | list[_T]:
        if isinstance(index, slice):
            return [self._row(place) for place in range(*index.indices(len(self)))]
        return self._row(range(len(self))[index])


def _begun(row: list[Message], head: list[Message]) -> list[Message]:
    """The conversation with `head` before it, where it has no system prompt of its own."""
    return row if row[0]["role"] == "system" else [*head, *row]


def conversation(row: dict[str, Any], place: str) -> list[Message]:
    """The turns of one SFT row: its `messages`, or else its `text`, which may follow a template
    that is not ChatML where both are there. `place` names a row that has none in the InputError."""
    if row.get("messages") is not None:
        check_messages(row["messages"], place)
        messages = [{name: turn[name] for name in ("role", "content")} for turn in row["messages"]]
    elif row.get("text") is not None:
        try:
            messages = parse_chatml(row["text"])
        except (TypeError, ValueError) as error:
            raise InputError(f"{place}: field 'text': {error}") from None
    else:
        raise InputError(f"{place}: field 'text' (ChatML) or 'messages' is missing")
    if messages[-1]["role"] != "assistant":
        raise InputError(f"{place}: the last turn is not the assistant's, so there is no answer")
    if not any(turn["role"] == "user" for turn in messages):
        raise InputError(f"{place}: no turn is the user's, so there is no question")
    return messages


def check_messages(messages: Any, place: str) -> None:
    """Raises InputError that names `place` where `messages` are no turns of a conversation."""
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{place}: field 'messages': expected a list of turns")
    for number, turn in enumerate(messages, 1):
        well_formed = isinstance(turn, dict) and isinstance(turn.get("content"), str)
        if not well_formed or turn.get("role") not in ROLES:
            raise InputError(
                f"{place}: field 'messages', turn {number}: expected a 'content' text and a 'role' "
                f"of {', '.join(ROLES)}"
            )


def reference_conversations(problems: Iterable[Problem], language: str) -> list[list[Message]]:
    """Each problem that has a reference in `language`, with it as the answer."""
    fence = LANGUAGES[language].fence
    return [
        [
            *in_language(problem, language).turns(),
            {"role": "assistant", "content": f"```{fence}\n{reference.strip()}\n```"},
        ]
        for problem in problems
        if (reference := problem.reference.get(language)) is not None
    ]


def to_chatml(messages: Iterable[Message]) -> str:
    """The turns as ChatML text, the form of the `text` field."""
    return "\n".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>" for m in messages)


def hold_out(
    rows: Sequence[list[Message]], share: float, seed: int
) -> tuple[Sequence[list[Message]], Sequence[list[Message]]]:
    """The rows to train on, and about `share` of them to validate on, one at least.

    Rows of one prompt stay together, and which are held out depends on the prompts and `seed`
    alone. Raises InputError where all rows have the same prompt.
    """
    prompts = [digest(row[:-1]) for row in rows]
    order = sorted(set(prompts), key=lambda prompt: digest(seed, prompt))
    if len(order) < 2:
        raise InputError("sft.validation: all conversations have one prompt: none can be held out")
    held_out = set(order[: min(max(1, round(share * len(order))), len(order) - 1)])
    trained, validated = array("q"), array("q")
    for place, prompt in enumerate(prompts):
        (validated if prompt in held_out else trained).append(place)
    return (
        View(trained, lambda index: rows[trained[index]]),
        View(validated, lambda index: rows[validated[index]]),
    )


def common_system(rows: Iterable[list[Message]]) -> str | None:
    """The system prompt that all conversations begin with, None where they differ or have none."""
    systems = {row[0]["content"] if row[0]["role"] == "system" else None for row in rows}
    return systems.pop() if len(systems) == 1 else None
