"""What a row asks, whether it is one for SFT or a problem."""

from typing import Any

from haloforge.data.chat import parse_chatml
from haloforge.data.jsonl import json_object
from haloforge.data.sft import check_messages
from haloforge.errors import InputError
from haloforge.schema import Message


def parse_row(line: str, place: str) -> dict[str, Any]:
    """The fields of a row that are not null: a table gives every row every column."""
    return {name: value for name, value in json_object(line, place).items() if value is not None}


def turns_of(row: dict[str, Any], place: str) -> list[Message]:
    """The turns of a row in `messages`, `text`, `prompt` or `prefix`, with the answer where it has
    one; text beside messages may follow a template that is not ChatML.

    Raises InputError that names `place` and the field."""
    if "messages" in row:
        check_messages(row["messages"], place)
        messages: list[Message] = row["messages"]
        return messages
    if "text" in row:
        try:
            return parse_chatml(row["text"])
        except (TypeError, ValueError) as error:
            raise InputError(f"{place}: field 'text': {error}") from None
    for name in ("prompt", "prefix"):
        if name in row:
            return [{"role": "user", "content": text(row, name, place)}]
    raise InputError(f"{place}: field 'prompt' is missing (or 'messages', or ChatML in 'text')")


def text(row: dict[str, Any], name: str, place: str) -> str:
    """The text of a field. Raises InputError where it is none."""
    if not isinstance(row[name], str):
        raise InputError(f"{place}: field '{name}': expected text, found {row[name]!r:.40}")
    return str(row[name])
