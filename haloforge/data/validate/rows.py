"""What is wrong with one row, and what it holds: turns, solutions, language and licence."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Literal

from haloforge.data.chat import ROLES, parse_chatml
from haloforge.data.jsonl import json_object
from haloforge.data.problems import is_answered, parse_problem
from haloforge.data.sft import check_messages
from haloforge.errors import InputError
from haloforge.schema import Message
from haloforge.verify.extract import extract

Purpose = Literal["sft", "problems"]
_OF_PROBLEMS = {"prompt", "prefix", "tests", "test_code", "judge", "reference", "starter_code"}
_MARKS = ("<|im_start|>", "<|im_end|>")
_MOST_EXTRACTED = 10**6
"""Characters of an answer that is looked through for code: nobody's program is longer."""
_NAME = 60  # characters of a language or licence that are told


class Kind(StrEnum):
    """Kinds of faults, for which a row is wrong, and of warnings, for which it is not."""

    JSON = "json"
    SCHEMA = "schema"
    CHATML = "chatml"
    ROLES = "roles"
    EMPTY = "empty"
    HUGE = "huge"
    PROBLEM_ID = "problem_id"
    DUPLICATE = "duplicate"
    REFERENCE = "reference"
    CONTAMINATED = "contaminated"
    NEAR_DUPLICATE = "near_duplicate"
    UNJUDGED = "unjudged"


WARNINGS = {
    Kind.NEAR_DUPLICATE: "very like an earlier row",
    Kind.UNJUDGED: "a reference could not be judged",
}
FAULTS = {
    Kind.JSON: "not a JSON object",
    Kind.SCHEMA: "a field is missing, unknown or of another type",
    Kind.CHATML: "ChatML that is not balanced, or says other than 'messages'",
    Kind.ROLES: "turns out of order, or not ended as they must",
    Kind.EMPTY: "a turn without text",
    Kind.HUGE: "more tokens than --max-tokens",
    Kind.PROBLEM_ID: "the id of an earlier problem, which asks something else",
    Kind.DUPLICATE: "the same as an earlier row (of problems: the same prompt)",
    Kind.REFERENCE: "its reference fails its own tests, or they are at fault",
    Kind.CONTAMINATED: "holds a task of a benchmark",
}
"""Of each kind what it means."""

Fault = tuple[Kind, str]
"""What is wrong, and the reason in words."""


@dataclass
class Checked:
    """One row: its faults, and what else is to be looked at.

    `turns` are empty for a row that cannot be read. `key` is the same for rows that are the same,
    `asked` whether an answer is still to come, as in problems. `solutions` are code by language.
    """

    faults: list[Fault] = field(default_factory=list)
    turns: list[Message] = field(default_factory=list)
    key: int | None = None
    asked: bool = False
    prefix: str | None = None
    problem_id: str | None = None
    solutions: list[tuple[str, str]] = field(default_factory=list)
    references: int = 0
    language: str = "not known"
    licence: str = "not told"

    def text(self) -> str:
        """All that the row says beside system prompts."""
        said = [turn["content"] for turn in self.turns if turn["role"] != "system"]
        return "\n".join([*said, *(code for _, code in self.solutions if self.asked)])


def check_row(line: str, place: str, purpose: Purpose | None) -> Checked:
    """`line`, a row's JSON, looked at by itself; `purpose` is what it should be, None for what it
    looks like. Fields that are null in a row of a table are not there."""
    try:
        row = json_object(line, place)
        json.dumps(row, ensure_ascii=False).encode()
    except InputError as error:
        return Checked([(Kind.JSON, _said(error, place))])
    except UnicodeEncodeError:
        return Checked([(Kind.SCHEMA, "half a surrogate pair, no text")])
    if ", row " in place:
        row = {name: value for name, value in row.items() if value is not None}
    if purpose is None:
        answered = "text" in row or is_answered(row.get("messages"))
        purpose = "problems" if not answered and row.keys() & _OF_PROBLEMS else "sft"
    found = _problem(row, place) if purpose == "problems" else _conversation(row, place)
    found.licence = _name(row, "license", "licence") or found.licence
    found.language = _name(row, "language") or found.language
    return found


def _conversation(row: dict[str, Any], place: str) -> Checked:
    found = Checked()
    messages, text = row.get("messages"), row.get("text")
    if "messages" in row:
        try:
            check_messages(messages, place)
            found.turns = messages or []
        except InputError as error:
            found.faults.append((Kind.SCHEMA, _said(error, place)))
    elif "text" not in row:
        found.faults.append((Kind.SCHEMA, "field 'text' (ChatML) or 'messages' is missing"))
    if found.turns and isinstance(text, str) and not _says(text, found.turns):
        found.faults.append((Kind.CHATML, "'text' says other than 'messages'"))
    elif "text" in row and not found.turns:
        try:
            found.turns = parse_chatml(text or "")
        except (TypeError, ValueError) as error:
            found.faults.append((Kind.CHATML, f"field 'text': {error}"))
    if not found.turns:
        return found
    found.faults += _turn_faults(found.turns, "assistant")
    found.key = key_of(found.turns)
    said = found.turns[-1]["content"]
    answer = extract(said, None) if len(said) <= _MOST_EXTRACTED else None
    if answer is not None and answer.language is not None:
        found.language = answer.language
        found.solutions = [(answer.language, answer.code)]
    return found


def _problem(row: dict[str, Any], place: str) -> Checked:
    try:
        problem = parse_problem(row, place)
        if problem.messages is not None:
            check_messages(problem.messages, place)
    except InputError as error:
        return Checked([(Kind.SCHEMA, _said(error, place))], asked=True)
    turns = [{"role": "user", "content": problem.prefix}] if problem.prefix else problem.turns()
    return Checked(
        faults=_turn_faults(turns, "user"),
        turns=turns,
        key=key_of(turns, "prefix" if problem.prefix else "turns"),
        asked=True,
        prefix=problem.prefix,
        problem_id=problem.problem_id,
        solutions=list(problem.reference.items()),
        references=len(problem.reference),
        language=problem.language or "not known",
    )


def key_of(turns: list[Message], form: str = "turns") -> int:
    """A digest of 64 bits of turns, and of the form in which they are put to a model."""
    said = "\0".join([form, *(f"{turn['role']}\0{turn['content']}" for turn in turns)])
    return int.from_bytes(blake2b(said.encode(), digest_size=8).digest(), "big")


def _turn_faults(turns: list[Message], last: str) -> list[Fault]:
    """What is wrong with the order and the contents of turns, which should end with `last`."""
    faults = []
    expected = "user"
    for number, turn in enumerate(turns, 1):
        role, content = turn["role"], turn["content"]
        if role != "system" or number > 1:
            if role != expected:
                wrong = f"turn {number}: expected the {expected}'s, found the {role}'s"
                faults.append((Kind.ROLES, wrong))
                break
            expected = "assistant" if role == "user" else "user"
        mark = next((mark for mark in _MARKS if mark in content), None)
        if mark is not None:
            faults.append((Kind.CHATML, f"turn {number}: its text holds '{mark}'"))
        if role != "system" and not content.strip():
            faults.append((Kind.EMPTY, f"turn {number} ({role}) has no text"))
    if turns[-1]["role"] != last:
        faults.append((Kind.ROLES, f"the last turn is not the {last}'s"))
    return faults


def _says(text: str, turns: list[Message]) -> bool:
    """Whether `text` is what some template makes of `turns`, by which a row is learnt: whether it
    says the same where it is ChatML, between marks of its beginning and end; where it is like that,
    whether it has each turn's text, in their order. Other templates are not looked into."""
    if _MARKS[0] not in text:
        return True
    begin = text.index(_MARKS[0])
    begin = begin if _SPECIAL.fullmatch(text[:begin]) else 0
    end = text.rfind(_MARKS[1]) + len(_MARKS[1])
    end = end if _SPECIAL.fullmatch(text[end:]) else len(text)
    spoken = _spoken(turns)
    try:
        return _spoken(parse_chatml(text[begin:end])) == spoken
    except ValueError:
        if _CHATML.match(text, begin):
            return False
    place = 0
    for _, said in spoken:
        found = text.find(said, place)
        if found < 0:
            return False
        place = found + len(said)
    return True


_SPECIAL = re.compile(r"\s*(?:(?:<[^<>\s]+>|\[[A-Z]+\])\s*)*")
"""Tokens that templates put around a conversation, such as `<|begin_of_text|>`."""
_CHATML = re.compile(rf"<\|im_start\|>(?:{'|'.join(ROLES)})\n")
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


def _spoken(turns: list[Message]) -> list[tuple[str, str]]:
    """Turns without what templates add or leave out: the system prompt, the thoughts before an
    answer, blanks."""
    return [
        (turn["role"], _THOUGHT.sub("", turn["content"], count=1).strip())
        if turn["role"] == "assistant" and _THOUGHT.match(turn["content"])
        else (turn["role"], turn["content"].strip())
        for turn in turns
        if turn["role"] != "system"
    ]


def _name(row: Mapping[str, Any], *fields: str) -> str | None:
    values = (row.get(field) for field in fields)
    return next((value[:_NAME] for value in values if isinstance(value, str) and value), None)


def _said(error: InputError, place: str) -> str:
    return str(error).removeprefix(f"{place}: ")
