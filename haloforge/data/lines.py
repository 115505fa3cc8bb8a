"""A row of a data set as the line that is written of it; this runs wherever Ray puts it."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pyarrow as pa
from jinja2.exceptions import TemplateError

from haloforge.data.adapters import Adapted, LeftOut
from haloforge.data.adapters.own import adapt_own, asked
from haloforge.data.jsonl import json_object
from haloforge.data.keys import digest64, prompt_digest, turns_digest
from haloforge.data.problems import parse_problem
from haloforge.data.rows import Row
from haloforge.data.sft import to_chatml
from haloforge.data.sources import Source
from haloforge.errors import InputError
from haloforge.schema import Message, Problem

Purpose = Literal["sft", "problems"]
# What a row of SFT says in its turns, or in its answer.
_IN_TURNS = {"prompt", "messages", "prefix", "system", "stop", "answer_start", "reference"}
_TESTS = {"judge", "tests", "test_code", "entry_point", "checker", "comparison", "float_tolerance"}
MOST_BESIDE = 2**16
"""Characters of a problem whose tests a row of SFT carries: sets have tests of megabytes, and many
answers to a problem."""

LINES = pa.schema(
    [
        ("row", pa.string()),
        ("problem", pa.string()),
        ("prompt", pa.uint64()),
        ("group", pa.uint64()),
        ("name", pa.uint64()),
        ("read", pa.uint64()),
        ("left_out", pa.string()),
        ("fault", pa.string()),
        ("stops", pa.bool_()),
    ]
)
"""What `write` makes of a row: `row` is its line in the output, `problem` that in a file of
problems, where it is another. `prompt`, `group`, `name` (its id) and `read` (all of it) are
digests. Of a row that gives no line, `left_out` is the reason, and `fault` tells place and field of
one that is not of the set's form, which `stops` those who read a file of their own."""


@dataclass(frozen=True)
class Writing:
    """How lines are made: for what, in which language, and by the chat template of the tokenizer
    in the folder `template`; None is ChatML."""

    source: Source
    purpose: Purpose
    language: str | None = None
    template: str | None = None


def write(rows: pa.Table, writing: Writing) -> pa.Table:
    """LINES of the ROWS of `streams.read_rows`, in their order."""
    pairs = zip(rows["place"].to_pylist(), rows["row"].to_pylist(), strict=True)
    return pa.Table.from_pylist([_line(*pair, writing) for pair in pairs], schema=LINES)


def _line(place: str, text: str, writing: Writing) -> dict[str, Any]:
    read = {"read": digest64(text)}
    try:
        row = json_object(text, place)
    except InputError as error:  # the file is broken, whosever set it is
        return {**read, "left_out": "not JSON", "fault": _utf8(error), "stops": True}
    try:
        found = _lines(_adapted(row, place, writing), row, place, writing)
    except InputError as error:
        reason = _utf8(error).removeprefix(f"{place}: ")
        stops = writing.source.strict
        return {**read, "left_out": reason, "fault": _utf8(error), "stops": stops}
    return {**read, **(found if isinstance(found, dict) else {"left_out": _utf8(found.reason)})}


def _utf8(told: object) -> str:
    """What is told of a row may quote half a surrogate pair, which Arrow cannot hold."""
    return str(told).encode(errors="replace").decode()


def _adapted(row: dict[str, Any], place: str, writing: Writing) -> Adapted:
    source = writing.source
    if source.entry is None or source.bundled:
        return adapt_own(Row(row, place), writing.language, writing.purpose == "sft")
    found = source.entry.adapt(row, place, writing.language, source.strict)
    split = source.entry.splits.get(found.split or "")
    if split is None or split.used_for == "train" or source.allow_test_data:
        return found
    if place.startswith(source.test_files):
        return found
    other = LeftOut(f"it is of the set's split '{found.split}'")
    return Adapted(other, other)


def _lines(
    found: Adapted, row: dict[str, Any], place: str, writing: Writing
) -> dict[str, Any] | LeftOut:
    wanted = found.conversation if writing.purpose == "sft" else found.problem
    if isinstance(wanted, LeftOut):
        return wanted
    fields = _problem(found, place, writing)
    traced = _traced(fields, row, place, writing.source)
    problem = json.dumps(traced, ensure_ascii=False)
    line, other = problem, None
    if isinstance(found.conversation, list) and writing.purpose == "sft":
        text = _text(found.conversation, writing.template)
        if isinstance(text, LeftOut):
            return text
        line, other = learnt(text, found.conversation, traced), problem
    try:
        line.encode()
    except UnicodeEncodeError:
        raise InputError(f"{place}: half a surrogate pair, which is no text") from None
    checked = Problem.model_construct(**traced)
    if not any(turn["content"].strip() for turn in checked.turns()) and not checked.prefix:
        raise InputError(f"{place}: field 'prompt': is empty")
    asked = found.conversation[:-1] if other is not None else None
    return {
        "row": line,
        "problem": other,
        "prompt": prompt_digest(checked) if asked is None else turns_digest(asked),
        "group": digest64(traced["group"]),
        "name": digest64(traced["problem_id"]),
    }


def learnt(text: str, messages: list[Message], problem: dict[str, Any]) -> str:
    """The line of a row of SFT: the conversation, twice, and beside it the fields of its problem
    that are not said in it."""
    large = len(json.dumps(problem, ensure_ascii=False)) > MOST_BESIDE
    left = _IN_TURNS | _TESTS if large else _IN_TURNS
    beside = {name: value for name, value in problem.items() if name not in left}
    return json.dumps({"text": text, "messages": messages, **beside}, ensure_ascii=False)


def _problem(found: Adapted, place: str, writing: Writing) -> dict[str, Any]:
    """The row's problem; where it has none with tests, the one that its answer is an answer to."""
    if isinstance(found.problem, dict):
        return found.problem
    assert isinstance(found.conversation, list)
    entry = writing.source.entry
    known = entry.languages if entry is not None else []
    language = writing.language or (known[0] if len(known) == 1 else None)
    named = {"language": language} if language else {}
    problem = parse_problem({**named, **found.names, **asked(found.conversation[:-1])}, place)
    return problem.model_dump(exclude_defaults=True)


def _traced(
    fields: dict[str, Any], row: dict[str, Any], place: str, source: Source
) -> dict[str, Any]:
    """`fields` with a group, and with where the row is from; a file of somebody's own may tell
    that of what it was made of."""
    where = source.named(place)
    mapped = source.entry is not None and "source" in source.entry.fields
    before = row.get("source") if source.entry is None else fields.get("source") if mapped else None
    licence = fields.get("license") or source.licence
    return {
        **fields,
        "group": fields.get("group") or fields["problem_id"],
        "source": f"{where} (of {before})" if before else where,
        **({"license": licence} if licence else {}),
    }


def _text(messages: list[Message], template: str | None) -> str | LeftOut:
    if template is not None:
        try:
            return str(_tokenizer(template).apply_chat_template(messages, tokenize=False))
        except TemplateError as error:
            return LeftOut(f"the chat template refuses it: {error}")
    if any(
        "<|im_start|>" in turn["content"] or "<|im_end|>" in turn["content"] for turn in messages
    ):
        return LeftOut("a turn holds ChatML's own marks")
    return to_chatml(messages)


@cache
def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer  # seconds to import

    return AutoTokenizer.from_pretrained(folder)
