"""JSON Lines files: reading with the place of every fault, writing whole or not at all."""

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO, overload

from pydantic import ValidationError

from haloforge.errors import InputError


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not blank.

    Raises InputError for a missing or empty file, and for a line that is no JSON object.
    """
    try:
        handle = path.open(encoding="utf-8-sig", newline="\n")  # as JSON Lines has it
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


class JsonLines(Sequence[dict[str, Any]]):
    """The objects of a file that was read through once: each is parsed where it is asked for, and
    only where it stands is kept, 8 bytes a line."""

    def __init__(self, path: Path) -> None:
        """Raises InputError as `read_jsonl` does."""
        self.path = path
        self._starts, self._numbers = array("q"), array("q")
        for number, _ in read_jsonl(path):
            self._numbers.append(number)
        wanted, place = iter(self._numbers), 0
        following = next(wanted, None)
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if number == following:
                    self._starts.append(place)
                    following = next(wanted, None)
                place += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def place(self, index: int) -> str:
        """File and line of a row, for what is said of it."""
        return f"{self.path}, line {self._numbers[index]}"

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        with self.path.open("rb") as handle:
            handle.seek(self._starts[index])
            return _object(self.path, self._numbers[index], handle.readline().decode("utf-8-sig"))


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    return json_object(line, f"{path}, line {number}")


def json_object(text: str, place: str) -> dict[str, Any]:
    """The object in `text`. Raises InputError that names `place` for what is none."""
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not valid JSON ({error.msg} at column {error.colno})") from None
    except ValueError:  # of an integer that is longer than Python reads
        raise InputError(f"{place}: not valid JSON (an integer of too many digits)") from None
    except RecursionError:
        raise InputError(f"{place}: JSON that is nested too deeply") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected a JSON object, found {text[:40]!r}")
    return row


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes one object a line and returns how many; `path` appears when all are written."""
    return write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes `lines` and returns how many; `path` appears when all are written."""
    count = 0
    with whole(path) as [handle]:
        for line in lines:
            handle.write(line + "\n")
            count += 1
    return count


@contextmanager
def whole(*paths: Path) -> Iterator[list[TextIO]]:
    """Files to write, of which each appears where the block ends well, when all are on the disk."""
    partials = [path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        with ExitStack() as stack:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            handles: list[TextIO] = [
                stack.enter_context(partial.open("w", encoding="utf-8", newline="\n"))
                for partial in partials
            ]
            yield handles
            for handle in handles:
                handle.flush()
                os.fsync(handle.fileno())
        for partial, path in zip(partials, paths, strict=True):
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found, as `field: what was expected`."""
    fault = error.errors()[0]
    message = fault["msg"].removeprefix("Value error, ")
    field = ".".join(str(part) for part in fault["loc"])
    return f"field '{field}': {message}" if field else message
