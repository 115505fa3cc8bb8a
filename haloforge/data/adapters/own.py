"""Rows of nobody's set in particular: instructions with answers, conversations, problems.

These are what a user's own entry names, with a map from their fields to the user's columns.
"""

from typing import Any

from haloforge.data.adapters.adapter import (
    Adapted,
    Adapter,
    LanguageName,
    LeftOut,
    Options,
    Shape,
    fenced,
    shape,
    turns,
)
from haloforge.data.adapters.fields import cases, number, text, texts, unpacked, wrong
from haloforge.data.problems import (
    DEFAULT_LANGUAGE,
    LANGUAGES,
    in_language,
    is_answered,
    parse_problem,
)
from haloforge.data.rows import Row
from haloforge.data.sft import conversation, reference_conversations
from haloforge.data.showing import with_names_shown
from haloforge.errors import InputError
from haloforge.schema import Message, Problem

INSTRUCTION = shape(
    "prompt answer", "system score problem_id group language source license difficulty tags"
)
_NAMED = ("problem_id", "group", "language", "source", "license", "difficulty")
CHATS = (shape("messages"), shape("text"))
OTHER_FIELDS = {*Problem.model_fields} - {"prompt", "messages", "prefix"}
NO_TESTS = LeftOut("the set is for SFT: it has no tests")


class InstructionOptions(Options):
    """`language` is that of answers which are code and nothing else, and are put into a block.
    `at_least` leaves out rows whose `score` is lower."""

    language: LanguageName | None = None
    at_least: float | None = None


def adapt_instruction(row: Row, options: InstructionOptions) -> Adapted:
    """An instruction and its answer."""
    question, answer = text(row, "prompt").strip(), text(row, "answer").strip()
    if not question or not answer:
        return Adapted(NO_TESTS, LeftOut("its prompt or its answer is empty"))
    score = number(row, "score")
    if options.at_least is not None and (score is None or score < options.at_least):
        return Adapted(NO_TESTS, LeftOut(f"its score is below {options.at_least:g}"))
    if options.language and "```" not in answer:
        answer = fenced(answer, options.language)
    named = _said_of(row)
    if options.language:
        named["language"] = options.language
    system = text(row, "system")
    head = [{"role": "system", "content": system}] if system else []
    return Adapted(NO_TESTS, [*head, *turns(question, answer)], names=named)


def _said_of(row: Row) -> dict[str, Any]:
    """What a row says of its problem. A language that programs are not written in, such as English,
    is none; numbers are names as well."""
    said = {name: _label(row, name) for name in _NAMED}
    named: dict[str, Any] = {name: value for name, value in said.items() if value}
    if named.get("language") not in LANGUAGES:
        named.pop("language", None)
    tags = row.get("tags")
    if isinstance(tags, str) and not tags.lstrip().startswith("["):
        tags = [tag.strip() for tag in tags.split(",") if tag.strip()]
    elif tags is not None:
        tags = texts(row, "tags")
    return {**named, **({"tags": tags} if tags else {})}


def _label(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return text(row, name).strip()


def adapt_chat(row: Row, options: Options) -> Adapted:
    """Turns in `messages`, or ChatML in `text`."""
    return Adapted(NO_TESTS, conversation(row, row.place))


class ProblemOptions(Options):
    """`language` is that of problems which name none."""

    language: LanguageName | None = None


def adapt_problem(row: Row, options: ProblemOptions) -> Adapted:
    """A problem by the fields of haloforge's own rows, and its reference as the answer.

    `tests`, `reference`, `tags` and the like may be JSON as text; a test's halves may be called
    `input` and `output`, and a reference may be code alone. A prompt that hides what its tests call
    is given a test that shows it.
    """
    packed = {*row} & {"messages", "starter_code", "limits", "tags", "stop"}
    fields = _without_nulls({**row, **{name: unpacked(row, name) for name in packed}})
    if "tests" in fields:
        fields["tests"] = cases(row, "tests")
    if options.language:
        fields.setdefault("language", options.language)
    if "reference" in fields:
        fields["reference"] = _reference(row, fields)
    problem = showing_problem(fields, row.place)
    code = problem.reference.get(problem.language or "")
    answer = LeftOut("it has no reference in its language")
    return Adapted(
        problem.model_dump(exclude_defaults=True),
        [*problem.turns(), {"role": "assistant", "content": fenced(code, problem.language)}]
        if code and problem.prefix is None
        else answer,
    )


def showing_problem(fields: dict[str, Any], place: str) -> Problem:
    """The problem of these fields, its prompt showing what Python tests call. Raises InputError."""
    try:
        fields = with_names_shown(fields)
    except ValueError as error:
        raise InputError(f"{place}: field 'test_code': {error}") from None
    return parse_problem(fields, place)


_EMPTY_IS_NONE = ("problem_id", "group", "language", "license", "difficulty")


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """`row` without what is there only because a table gives every row every column, and every turn
    every field: a name that is the empty text is none."""
    fields = {
        name: value
        for name, value in row.items()
        if value is not None and not (name in _EMPTY_IS_NONE and value == "")
    }
    for name in ("reference", "starter_code"):
        if isinstance(held := fields.get(name), dict):
            fields[name] = {key: value for key, value in held.items() if value is not None}
    if isinstance(turns := fields.get("messages"), list):
        fields["messages"] = [
            {name: turn[name] for name in ("role", "content") if name in turn}
            if isinstance(turn, dict)
            else turn
            for turn in turns
        ]
    return fields


def _reference(row: Row, fields: dict[str, Any]) -> dict[str, str]:
    value = row["reference"]
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        judged_in_python = "test_code" in fields and "language" not in fields
        language = "python" if judged_in_python else fields.get("language")
        if not language:
            raise wrong(row, "reference", "code by language, or a 'language' beside it")
        return {language: value}
    found = unpacked(row, "reference")
    if not isinstance(found, dict):
        raise wrong(row, "reference", "code by language")
    return {name: code for name, code in found.items() if code is not None}


def adapt_own(row: Row, language: str | None, answered: bool) -> Adapted:
    """A row of haloforge's own form: of SFT, with a problem's fields where it has some, or a
    problem, asked in `language` where it names none, with its reference as the answer; or an
    instruction and its answer. What else a row of SFT holds is not looked at.

    Raises InputError that names place and field; also, where rows are to be `answered`, for turns
    that end without an answer.
    """
    told = Row(_without_nulls(row), row.place)
    if INSTRUCTION.fits(row) or INSTRUCTION.fits(told):
        return adapt_instruction(told, InstructionOptions(language=language))
    row = told
    if is_answered(row.get("messages")) or ("text" in row and answered):
        turns = conversation(row, row.place)
        held = {name: row[name] for name in row if name in OTHER_FIELDS}
        named = {"language": language} if language else {}
        problem = showing_problem({**named, **held, **asked(turns[:-1])}, row.place)
        return Adapted(problem.model_dump(exclude_defaults=True), turns)
    problem = in_language(showing_problem(row, row.place), language)
    wanted = problem.language or language or DEFAULT_LANGUAGE
    found = reference_conversations([problem], wanted) if problem.prefix is None else []
    answer = found[0] if found else LeftOut(f"it has no reference in {wanted}")
    return Adapted(problem.model_dump(exclude_defaults=True), answer)


def asked(turns: list[Message]) -> dict[str, Any]:
    """The fields of a problem that asks with these turns."""
    if len(turns) == 1 and turns[0]["role"] == "user":
        return {"prompt": turns[0]["content"]}
    return {"messages": turns}


INSTRUCTIONS = Adapter(InstructionOptions, (INSTRUCTION,), adapt_instruction, fences=True)
CHAT = Adapter(Options, CHATS, adapt_chat)
_OPTIONAL = frozenset(Problem.model_fields)
PROBLEMS = Adapter(
    ProblemOptions,
    tuple(Shape(frozenset({name}), _OPTIONAL) for name in ("prompt", "messages", "prefix")),
    adapt_problem,
)
