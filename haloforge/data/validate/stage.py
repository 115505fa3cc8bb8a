"""The stage of Ray Data that looks at rows, each by itself: of each it hands on a few numbers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from jinja2.exceptions import TemplateError

from haloforge.data.chat import ensure_template
from haloforge.data.validate.contamination import GRAM, Index
from haloforge.data.validate.duplicates import BANDS, SHINGLE, VALUES, signatures
from haloforge.data.validate.rows import Checked, Kind, Purpose, check_row
from haloforge.data.validate.words import grams, words
from haloforge.schema import digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FACTS = np.dtype(
    [
        ("file", np.uint16),
        ("line", np.uint32),
        ("tokens", np.int32),
        ("keyed", np.bool_),
        ("key", np.uint64),
        ("named", np.bool_),
        ("name", np.uint64),
        ("references", np.uint8),
        ("shingled", np.bool_),
        ("bands", np.uint32, BANDS),
        ("kept", np.uint8, VALUES),
    ]
)
"""What is kept of a row, 220 bytes: its file (its number among those read) and its line, or row;
its tokens, -1 where it has none; its `key` and its problem's id (`name`) as numbers, where it has
them; the number of its references; its signature (see duplicates.py), where it has one."""
CHECKED = pa.schema(
    [
        ("facts", pa.binary(FACTS.itemsize)),
        ("faults", pa.string()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("bytes", pa.int64()),
    ]
)
"""What the stage hands on: FACTS as bytes, and the row's faults as JSON, null where it has none."""
BATCH = 1000
_AT_ONCE = 4 * 2**20
"""Bytes of text that are looked at together: hashing words takes some forty times as many."""
MAX_FILES = 2**16
MOST_REFERENCES = 255


@dataclass(frozen=True)
class Checks:
    """What rows are looked at by. `files` are those read, in order; `index` is None where rows are
    not compared with benchmarks."""

    files: tuple[str, ...]
    tokenizer: "PreTrainedTokenizerBase"
    purpose: Purpose | None
    max_tokens: int
    index: Index | None
    overlap: float

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The rows of ROWS (see streams.py) as rows of CHECKED."""
        return pa.concat_tables(map(self._checked, slices(batch)))

    def _checked(self, batch: pa.Table) -> pa.Table:
        places, lines = batch["place"].to_pylist(), batch["row"].to_pylist()
        rows = [
            check_row(line, place, self.purpose) for line, place in zip(lines, places, strict=True)
        ]
        facts = np.zeros(len(rows), FACTS)
        self._place(facts, places)
        self._identify(facts, rows)
        self._count(facts, rows)
        self._compare(facts, rows)
        faults = [json.dumps(row.faults) if row.faults else None for row in rows]
        columns = {
            "facts": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(FACTS.itemsize), len(rows), [None, pa.py_buffer(facts.tobytes())]
            ),
            "faults": faults,
            "language": [row.language for row in rows],
            "licence": [row.licence for row in rows],
            "bytes": [len(line) for line in lines],
        }
        return pa.table(columns, schema=CHECKED)

    def _place(self, facts: npt.NDArray[Any], places: Sequence[str]) -> None:
        numbers = {file: number for number, file in enumerate(self.files)}
        halves = [place.rpartition(", ") for place in places]
        facts["file"] = [numbers[file] for file, _, _ in halves]
        facts["line"] = [int(line.partition(" ")[2]) for _, _, line in halves]

    def _identify(self, facts: npt.NDArray[Any], rows: Sequence[Checked]) -> None:
        facts["keyed"] = [row.key is not None for row in rows]
        facts["key"] = [row.key or 0 for row in rows]
        facts["named"] = [row.problem_id is not None for row in rows]
        facts["name"] = [int(digest(row.problem_id), 16) if row.problem_id else 0 for row in rows]
        facts["references"] = [min(row.references, MOST_REFERENCES) for row in rows]

    def _count(self, facts: npt.NDArray[Any], rows: Sequence[Checked]) -> None:
        """The tokens of each row as the model's chat template writes it."""
        template = ensure_template(self.tokenizer)
        texts, counted = [], []
        for place, row in enumerate(rows):
            try:
                if row.turns:
                    texts.append(self._rendered(row, template))
                    counted.append(place)
            except (TemplateError, TypeError, ValueError) as error:
                row.faults.append((Kind.ROLES, f"the chat template refuses the turns: {error}"))
        facts["tokens"] = -1
        if texts:
            ids = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            facts["tokens"][counted] = [len(each) for each in ids]
        for place in np.flatnonzero(facts["tokens"] > self.max_tokens):
            tokens = facts["tokens"][place]
            rows[place].faults.append((Kind.HUGE, f"{tokens} tokens, more than {self.max_tokens}"))

    def _rendered(self, row: Checked, template: str) -> str:
        if row.prefix is not None:
            return row.prefix
        text = self.tokenizer.apply_chat_template(
            row.turns, chat_template=template, tokenize=False, add_generation_prompt=row.asked
        )
        return str(text)

    def _compare(self, facts: npt.NDArray[Any], rows: Sequence[Checked]) -> None:
        found = words([row.text() for row in rows])
        signed = signatures(grams(found, SHINGLE), len(rows))
        facts["kept"], facts["bands"], facts["shingled"] = signed.kept, signed.bands, signed.any
        index = self.index
        if index is None:
            return
        held = index.by_prompt(grams(found, GRAM), self.overlap)
        for place, row in enumerate(rows):
            if place in held:
                task, share = held[place]
                why = f"{share:.0%} of the {GRAM}-grams of its prompt"
            elif (solved := index.by_solution(row.solutions)) is not None:
                task, why = solved, "its solution, but for comments and white space"
            else:
                continue
            name = f"{index.names[task]} of {index.benchmarks[task]}"
            row.faults.append((Kind.CONTAMINATED, f"{name}: {why}"))


def slices(batch: pa.Table) -> Iterator[pa.Table]:
    """`batch` in pieces of about _AT_ONCE bytes of text, of a row at least; one for an empty."""
    ends = np.cumsum(pc.binary_length(batch["row"]).to_numpy())
    pieces = np.flatnonzero(np.diff(ends // _AT_ONCE)) + 1
    for begin, end in pairwise([0, *pieces.tolist(), batch.num_rows]):
        yield batch.slice(begin, end - begin)
