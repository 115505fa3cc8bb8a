"""JSON Lines files: reading with the place of every fault, writing whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from haloforge.errors import InputError


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not blank.

    Raises InputError for a missing or empty file, and for a line that is no JSON object.
    """
    try:
        handle = path.open(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    found = False
    with handle:
        try:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                found = True
                yield number, _object(path, number, line)
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text ({error.reason})") from None
    if not found:
        raise InputError(f"{path}: the file is empty; expected one JSON object a line")


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno})"
        ) from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: expected a JSON object, found {line[:40]!r}")
    return row


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes one object a line and returns how many; `path` appears when all are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    count = 0
    with partial.open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    partial.replace(path)
    return count


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found, as `field: what was expected`."""
    fault = error.errors()[0]
    message = fault["msg"].removeprefix("Value error, ")
    field = ".".join(str(part) for part in fault["loc"])
    return f"field '{field}': {message}" if field else message
