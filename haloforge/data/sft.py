"""Rows for supervised fine-tuning: conversations that end with the answer to learn."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from haloforge.data.chat import ROLES, parse_chatml
from haloforge.data.jsonl import read_jsonl
from haloforge.data.problems import (
    DEFAULT_LANGUAGE,
    LANGUAGES,
    STARTER,
    fixed_subset,
    in_language,
    read_problems,
)
from haloforge.errors import InputError
from haloforge.schema import Message, Problem


def read_sft(
    source: str,
    language: str | None = None,
    system: str | None = None,
    difficulty: Collection[str] = (),
    limit: int | None = None,
) -> list[list[Message]]:
    """The conversations in `source`: `starter`, or a JSONL file with `text` or `messages`.

    Each ends with an assistant's turn; those without a system prompt begin with `system` if that is
    given, as sampling does. `difficulty` takes those of the starter set only, `limit` that many of
    the conversations, the same ones each time. Raises InputError naming file, line and field.
    """
    if source == STARTER and not Path(source).exists():
        asked = language or DEFAULT_LANGUAGE
        problems = read_problems(STARTER, language, difficulty=difficulty)
        solved = [problem for problem in problems if asked in problem.reference]
        few = fixed_subset(solved, limit, lambda problem: problem.problem_id)
        rows = reference_conversations(few, asked)
    else:
        path = Path(source)
        rows = [conversation(row, f"{path}, line {number}") for number, row in read_jsonl(path)]
        rows = fixed_subset(rows, limit, str)
    head: list[Message] = [{"role": "system", "content": system}] if system else []
    return [row if row[0]["role"] == "system" else [*head, *row] for row in rows]


def conversation(row: dict[str, Any], place: str) -> list[Message]:
    """The turns of one SFT row; `place` names it in the InputError for a row that has none."""
    if "text" in row:
        try:
            messages = parse_chatml(row["text"])
        except (TypeError, ValueError) as error:
            raise InputError(f"{place}: field 'text': {error}") from None
    elif "messages" in row:
        messages = row["messages"]
        _check_messages(messages, place)
    else:
        raise InputError(f"{place}: field 'text' (ChatML) or 'messages' is missing")
    if messages[-1]["role"] != "assistant":
        raise InputError(f"{place}: the last turn is not the assistant's, so there is no answer")
    return messages


def _check_messages(messages: Any, place: str) -> None:
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


def common_system(rows: Iterable[list[Message]]) -> str | None:
    """The system prompt that all conversations begin with, None where they differ or have none."""
    systems = {row[0]["content"] if row[0]["role"] == "system" else None for row in rows}
    return systems.pop() if len(systems) == 1 else None
