"""What was found in all rows, on disk where it grows with them: the driver holds a few numbers."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from haloforge.data.validate.duplicates import near_repeats, repeats
from haloforge.data.validate.rows import Fault, Kind
from haloforge.data.validate.stage import FACTS
from haloforge.data.validate.words import I64

_MOST_NAMES = 1000  # languages or licences that are told apart


class Found:
    """The blocks of CHECKED in order, as they came.

    `bad` tells of each row whether it has a fault, `repeated` and `near` of which earlier row it is
    a copy; `languages` and `licences` count rows.
    """

    def __init__(self, files: tuple[str, ...], folder: Path) -> None:
        """Keeps what it needs in `folder`."""
        self._files, self._folder = files, folder
        self.languages, self.licences = Counter[str](), Counter[str]()
        self.facts: npt.NDArray[Any] = np.zeros(0, FACTS)
        self.bad = np.zeros(0, np.bool_)
        self.repeated: dict[Kind, I64] = {}
        self.near = np.zeros(0, np.int64)
        self._judged: dict[Kind, dict[int, str]] = {Kind.REFERENCE: {}, Kind.UNJUDGED: {}}

    def __len__(self) -> int:
        return len(self.facts)

    def read(self, blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Takes all blocks in, and hands each on."""
        bad, rows = [np.zeros(0, np.bool_)], 0
        with self._path("facts").open("wb") as facts, self._path("faults").open("w") as faults:
            for block in blocks:
                for chunk in block["facts"].chunks:
                    begin, size = chunk.offset * FACTS.itemsize, len(chunk) * FACTS.itemsize
                    facts.write(chunk.buffers()[1][begin : begin + size])
                faulty = pc.is_valid(block["faults"])
                bad.append(faulty.to_numpy(zero_copy_only=False))
                places = rows + np.flatnonzero(bad[-1])
                told = block["faults"].filter(faulty).to_pylist()
                faults.writelines(f"{p} {f}\n" for p, f in zip(places, told, strict=True))
                for name, counts in (("language", self.languages), ("licence", self.licences)):
                    _count(block[name], counts)
                rows += block.num_rows
                yield block
        self.bad = np.concatenate(bad)
        if rows:
            self.facts = np.memmap(self._path("facts"), FACTS, "r")

    def compare(self, similar: float) -> None:
        """Finds rows that repeat, and those that nearly do, where their similarity is at or above
        `similar`. A row that is bad by itself is nobody's first: with it all would be gone."""
        keyed = np.flatnonzero(self.facts["keyed"] & ~self.bad)
        copies = repeats(self.facts["key"], keyed)
        # Of what is the same the first alone gives its name to a problem.
        named = np.flatnonzero(self.facts["named"] & ~self.bad & (copies < 0))
        self.repeated = {
            Kind.DUPLICATE: copies,
            Kind.PROBLEM_ID: repeats(self.facts["name"], named),
        }
        for first in self.repeated.values():
            self.bad |= first >= 0
        signed = np.flatnonzero(self.facts["shingled"] & ~self.bad)
        self.near = near_repeats(self.facts["bands"], self.facts["kept"], signed, similar)

    def judge(self, kind: Kind, row: int, why: str) -> None:
        """Notes of a row that its reference fails, or could not be judged."""
        self._judged[kind].setdefault(row, why)
        if kind is Kind.REFERENCE:
            self.bad[row] = True

    def place(self, row: int) -> tuple[str, int]:
        """The file of a row and its line, or its number in a table."""
        found = self.facts[row]
        return self._files[found["file"]], int(found["line"])

    def faults(self) -> Iterator[tuple[int, list[Fault]]]:
        """Each bad row, in order, with all that is wrong with it."""
        with self._path("faults").open() as spooled:
            noted = (line.split(" ", 1) for line in spooled)
            following = next(noted, None)
            for row in map(int, np.flatnonzero(self.bad)):
                found: list[Fault] = []
                if following is not None and int(following[0]) == row:
                    found = [(Kind(kind), why) for kind, why in json.loads(following[1])]
                    following = next(noted, None)
                for kind, first in self.repeated.items():
                    if first[row] >= 0:
                        found.append((kind, f"as {self._told(first[row])}"))
                if row in self._judged[Kind.REFERENCE]:
                    found.append((Kind.REFERENCE, self._judged[Kind.REFERENCE][row]))
                yield row, found

    def warnings(self) -> Iterator[tuple[int, Fault]]:
        """Each row that is like another, in order, then each whose reference was not judged."""
        for row in map(int, np.flatnonzero(self.near >= 0)):
            yield row, (Kind.NEAR_DUPLICATE, f"like {self._told(self.near[row])}")
        for row, why in sorted(self._judged[Kind.UNJUDGED].items()):
            yield row, (Kind.UNJUDGED, why)

    def _told(self, row: int) -> str:
        file, line = self.place(row)
        return f"{file}, line {line}"

    def _path(self, name: str) -> Path:
        return self._folder / name


def _count(column: pa.ChunkedArray, counts: Counter[str]) -> None:
    for each in pc.value_counts(column).to_pylist():
        known = each["values"] in counts or len(counts) < _MOST_NAMES
        counts[each["values"] if known else "others"] += each["counts"]
