"""What was answered, each answer committed at once: a file that only grows.

An answer costs money, so none waits for others as samples do in a shard: it is one line, written
whole before the next is asked for in its place, with a digest by which a line that a disk has
spoilt is known. A line that a kill has torn is no answer, and is cut off before the next is
written. Lines are in the kernel's hands at once and on the disk within a second.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from haloforge.schema import digest

FILE = "answers.jsonl"


@dataclass(frozen=True)
class Answer:
    """One answer: to which request, its text, why it ended, and the tokens read and written, as the
    server counts them, or about as many where it does not."""

    request: str
    text: str
    finish: str
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Answers:
    """The committed answers in a folder that this process holds (see store/lock.py); of each only
    where it stands is kept."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.spoilt = 0
        self.input_tokens = self.output_tokens = 0
        self._places: dict[str, int] = {}
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._end = self._look()
        os.ftruncate(self._descriptor, self._end)
        self._synced = self._end

    def _look(self) -> int:
        """Notes every whole line, and returns where the last one ends."""
        place = 0
        with self.path.open("rb") as handle:
            for line in handle:
                if not line.endswith(b"\n"):
                    break
                answer = _parsed(line)
                if answer is None:
                    self.spoilt += 1
                else:
                    self._note(answer, place)
                place += len(line)
        return place

    def _note(self, answer: Answer, place: int) -> None:
        if answer.request not in self._places:
            self._places[answer.request] = place
            self.input_tokens += answer.input_tokens
            self.output_tokens += answer.output_tokens

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, request: str) -> bool:
        return request in self._places

    @property
    def tokens(self) -> int:
        """Of all that was committed."""
        return self.input_tokens + self.output_tokens

    def commit(self, answer: Answer) -> None:
        """Adds one answer, whole or not at all."""
        line = _line(answer)
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                raise OSError(28, os.strerror(28), str(self.path))  # as a full disk tells it
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._note(answer, self._end)
        self._end += len(line)

    def sync(self) -> None:
        """Has what was committed on the disk, also where the power fails."""
        end = self._end
        if end > self._synced:
            os.fsync(self._descriptor)
            self._synced = end

    def read(self, request: str) -> Answer:
        """Raises KeyError for one that is not answered."""
        with self.path.open("rb") as handle:
            handle.seek(self._places[request])
            answer = _parsed(handle.readline())
        if answer is None:
            raise KeyError(request)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sync()
        os.close(self._descriptor)


def _line(answer: Answer) -> bytes:
    fields = asdict(answer)
    # Escaped: an answer may hold half a surrogate pair, which UTF-8 cannot.
    return (json.dumps({**fields, "check": _check(fields)}) + "\n").encode()


def _parsed(line: bytes) -> Answer | None:
    try:
        fields: dict[str, Any] = json.loads(line)
        check = fields.pop("check")
        answer = Answer(**fields)
        return answer if check == _check(asdict(answer)) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _check(fields: dict[str, Any]) -> str:
    return digest(json.dumps(fields, sort_keys=True))
