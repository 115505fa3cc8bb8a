"""An answer as a problem with tests and a solution, or why it is none; a pure function.

Asked for are three sections under headings: in them code is written as it stands, where in JSON it
must be escaped, which models do worse. An answer that is one JSON object with the three as fields
is read too, for some models write nothing else.
"""

import ast
import json
import re
from typing import Any, NamedTuple

from haloforge.data.adapters.fields import cases
from haloforge.data.adapters.own import showing_problem
from haloforge.data.generate.answers import Answer
from haloforge.data.generate.slots import Slot
from haloforge.data.generate.topic import Topic
from haloforge.data.normalise import normalise
from haloforge.data.problems import asked_in
from haloforge.data.rows import Row
from haloforge.data.sft import reference_conversations
from haloforge.errors import InputError
from haloforge.schema import CODE_JUDGES, UNPARSED, Problem
from haloforge.verify.extract import extract, said

SECTIONS = ("problem", "tests", "solution")
_HEADING = re.compile(
    r" {0,3}(?:#{1,6} *)?\**(problem|tests?|solution)(?: statement)?\**:?\**\s*#*", re.IGNORECASE
)
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_MARKS = ("<|im_start|>", "<|im_end|>")


class Rejected(NamedTuple):
    """Why an answer is not kept: the kind, which is counted, and the reason in words."""

    kind: str
    why: str


class _UnfitError(Exception):
    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.rejected = Rejected(kind, why)


def read_answer(answer: Answer, slot: Slot, topic: Topic, model: str) -> Problem | Rejected:
    """The problem in `answer`, with its solution as its reference in the topic's language."""
    try:
        return _read(answer, slot, topic, model)
    except _UnfitError as error:
        return error.rejected


def _read(answer: Answer, slot: Slot, topic: Topic, model: str) -> Problem:
    text = said(answer.text).strip()
    if answer.finish == "length":
        raise _UnfitError("cut_off", f"it was cut off after {answer.output_tokens} tokens")
    if not text:
        raise _UnfitError("empty", "it is empty")
    parts = _object(text) if text.startswith("{") else _sections(text)
    for name in SECTIONS:
        if not parts.get(name):
            raise _UnfitError("incomplete", f"it has no section '{name}'")
    if not isinstance(parts["problem"], str):
        raise _UnfitError("incomplete", "its section 'problem' is no text")
    statement = parts["problem"].strip()
    code = _code(parts["solution"], topic.language, "solution")
    if (broken := topic.broken(code, slot.category)) is not None:
        raise _UnfitError("pattern", broken)
    tests = _tests(parts["tests"], topic)
    _check_hidden(statement, code, tests, topic.language)
    fields = {
        "problem_id": slot.request,
        "group": slot.request,
        "prompt": asked_in(statement, topic.language),
        "language": topic.language,
        "judge": topic.judge,
        **tests,
        "reference": {topic.language: code},
        "difficulty": slot.level,
        "tags": [topic.name, slot.category],
        "source": f"{topic.name}, written by {model}",
    }
    try:
        problem = showing_problem(fields, "")
        json.dumps(problem.reference, ensure_ascii=False).encode()
    except InputError as error:
        raise _UnfitError("malformed", str(error).removeprefix(": ")) from None
    except UnicodeEncodeError:
        raise _UnfitError("malformed", "half a surrogate pair, no text") from None
    turns = reference_conversations([problem], topic.language)[0]
    if any(mark in turn["content"] for mark in _MARKS for turn in turns):
        raise _UnfitError("malformed", "it holds ChatML's own marks")
    return problem


def _object(text: str) -> dict[str, Any]:
    found = _json(text, "it")
    if not isinstance(found, dict):
        raise _UnfitError("json", "it is no JSON object")
    return {str(name).lower(): value for name, value in found.items()}


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text, strict=False)  # models write line ends into texts as they are
    except json.JSONDecodeError as error:
        half = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        kind = "half a JSON text" if half else "not valid JSON"
        raise _UnfitError(
            "json", f"{what} is {kind} ({error.msg} at line {error.lineno})"
        ) from None
    except (ValueError, RecursionError):
        raise _UnfitError("json", f"{what} is not valid JSON") from None


def _sections(text: str) -> dict[str, Any]:
    """What stands under each heading; what looks like one in a block of code is none. Of two with
    one name the last counts: models that correct themselves do so further down."""
    found: dict[str, list[str]] = {}
    section: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            closes = mark and mark[1].startswith(fence) and not line.strip(" \t`~")
            fence = "" if closes else fence
        elif mark:
            fence = mark[1]
        elif heading := _HEADING.fullmatch(line):
            name = heading[1].lower()
            section = found["tests" if name.startswith("test") else name] = []
            continue
        section.append(line)
    parts = {name: "\n".join(lines).strip() for name, lines in found.items()}
    if not parts and (block := _blocks_of(text)).startswith("{"):
        return _object(block)
    return parts


def _blocks_of(text: str) -> str:
    """What is in the first block of code, to the end where it is not closed."""
    lines = text.split("\n")
    begin = next((place for place, line in enumerate(lines) if _FENCE.match(line)), None)
    if begin is None:
        return text.strip()
    ends = (place for place, line in enumerate(lines) if place > begin and _FENCE.match(line))
    return "\n".join(lines[begin + 1 : next(ends, len(lines))]).strip()


def _code(section: Any, language: str, name: str) -> str:
    if not isinstance(section, str):
        raise _UnfitError("incomplete", f"its section '{name}' is no text")
    if "```" not in section and "~~~" not in section:
        return section.strip() + "\n"
    found = extract(section, language)
    if found is None or not found.code.strip():
        raise _UnfitError("no_code", f"its section '{name}' holds no code in {language}")
    return found.code


def _check_hidden(statement: str, code: str, tests: dict[str, Any], language: str) -> None:
    """A statement that tells the solution asks nothing, and one that tells every test can be
    answered by heart."""
    asked = normalise(statement, language)
    for what, told in (("solution", code), ("tests", tests.get("test_code", ""))):
        bare = normalise(told, language)
        if bare and bare in asked:
            raise _UnfitError("told", f"its problem tells the {what}")
    lines = _lines_of(statement)
    pairs = tests.get("tests", [])
    if pairs and all(_lines_of(half) in lines for pair in pairs for half in pair.values()):
        raise _UnfitError("told", "its problem tells every test")


def _lines_of(text: str) -> str:
    """Its lines, each whole, without blanks around them."""
    return "".join(f"\n{line.strip()}\n" for line in text.strip().split("\n"))


def _tests(section: Any, topic: Topic) -> dict[str, Any]:
    """The fields of a problem by which it is judged."""
    if topic.judge == "stdio":
        return {"tests": _pairs(section, topic.tests)}
    code = _code(section, topic.language, "tests")
    if topic.judge in CODE_JUDGES and (count := _checks(code)) < topic.tests:
        raise _UnfitError("few_tests", f"it has {count} checks; expected {topic.tests}")
    return {"test_code": code}


def _pairs(section: Any, least: int) -> list[dict[str, str]]:
    listed = (
        _json(_blocks_of(section), "its list of tests") if isinstance(section, str) else section
    )
    try:
        found = cases(Row({"tests": listed}, ""), "tests")
    except InputError as error:
        raise _UnfitError("malformed", str(error).removeprefix(": ")) from None
    outputs: dict[str, str] = {}
    for test in found:
        if outputs.setdefault(test["stdin"], test["stdout"]) != test["stdout"]:
            raise _UnfitError("malformed", "two of its tests read the same and print other things")
    if len(outputs) < least:
        raise _UnfitError("few_tests", f"it has {len(outputs)} different tests; expected {least}")
    return [{"stdin": stdin, "stdout": stdout} for stdin, stdout in outputs.items()]


def _checks(code: str) -> int:
    """Asserts, and blocks that expect an error."""
    try:
        nodes = [*ast.walk(ast.parse(code))]
    except UNPARSED as error:
        raise _UnfitError("malformed", f"its tests do not parse: {error}") from None
    raises = (node.func for node in nodes if isinstance(node, ast.Call))
    expected = sum(getattr(func, "attr", getattr(func, "id", "")) == "raises" for func in raises)
    return expected + sum(isinstance(node, ast.Assert) for node in nodes)
