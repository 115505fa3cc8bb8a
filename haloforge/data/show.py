"""`data show`: a few rows of a file, and how the values of a sample of them are distributed."""

import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jinja2.exceptions import TemplateError

from haloforge.data.asked import parse_row, turns_of
from haloforge.data.chat import ensure_template
from haloforge.data.keys import digest64
from haloforge.data.problems import is_answered
from haloforge.data.showing import asserts_of
from haloforge.data.streams import drain, list_files, read_rows, with_progress
from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.report.progress import Report
from haloforge.schema import Message
from haloforge.verify.extract import OPEN
from haloforge.verify.toolchains import language_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE = 10_000
"""Rows that distributions are of, where a file has more: a share of 50% is known to a point."""
_COUNTED = ("tokens", "characters", "tests")
_NAMED = ("language", "difficulty", "licence", "judge")
FACTS = pa.schema(
    [
        ("key", pa.uint64()),
        ("place", pa.string()),
        ("row", pa.string()),
        *((name, pa.int64()) for name in _COUNTED),
        *((name, pa.string()) for name in _NAMED),
        ("bytes", pa.int64()),
    ]
)
"""What is known of a row: `row` is its text if it is to be shown, else null."""


@dataclass
class Shown:
    """Rows to show, as place and fields, and of `sampled` of all `total` rows the numbers and the
    counts of names that they have; a row that has no value is in `without`."""

    total: int
    sampled: int
    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    names: dict[str, Counter[str]] = field(default_factory=dict)
    without: Counter[str] = field(default_factory=Counter)


def show(source: str, rows: int, seed: int, base: Base | None, report: Report) -> Shown:
    """Looks at `source`, JSONL or any other format of rows. Ray must be up.

    Tokens are those of the tokenizer of `base`, and characters are counted where that is None. The
    sample is the SAMPLE rows with the least keys, random ones that `seed` and a row's place give: a
    reservoir that needs no rows held (Efraimidis and Spirakis 2006, with equal weights). Of them
    the first `rows` are shown. Raises InputError for a line that is no JSON object.
    """
    files = list_files(source)
    stream = read_rows(files).map_batches(
        _keys, fn_kwargs={"seed": seed}, batch_size=None, batch_format="pyarrow"
    )
    least, total = np.empty(0, np.uint64), 0
    for block in with_progress(drain(stream), files, "reading rows", report):
        total += block.num_rows
        least = np.sort(np.append(least, block["key"].to_numpy()))[: max(SAMPLE, rows)]
    if not total:
        raise InputError(f"{source}: holds no rows")
    limits = [int(least[min(number, len(least)) - 1]) for number in (rows, max(SAMPLE, rows))]
    stream = read_rows(files).map_batches(
        _facts,
        fn_kwargs={"seed": seed, "limits": limits, "base": str(base.path) if base else None},
        batch_size=None,
        batch_format="pyarrow",
    )
    found = Shown(total, len(least), numbers={"tokens" if base else "characters": [], "tests": []})
    found.names = {name: Counter() for name in _NAMED}
    with report.stage("looking at a sample", len(least), "rows") as stage:
        for block in drain(stream):
            _add(found, block)
            stage.advance(block.num_rows)
    return found


def _add(found: Shown, block: pa.Table) -> None:
    for name, numbers in found.numbers.items():
        numbers += block[name].drop_null().to_pylist()
        found.without[name] += block[name].null_count
    for name, counts in found.names.items():
        counts.update(block[name].drop_null().to_pylist())
        found.without[name] += block[name].null_count
    shown = block.filter(pc.is_valid(block["row"]))
    for place, line in zip(shown["place"].to_pylist(), shown["row"].to_pylist(), strict=True):
        found.rows.append((place, parse_row(line, place)))


def _key(place: str, seed: int) -> int:
    return digest64(seed, place)


def _keys(batch: pa.Table, seed: int) -> pa.Table:
    keys = [_key(place, seed) for place in batch["place"].to_pylist()]
    sizes = pc.binary_length(batch["row"]).cast(pa.int64())
    return pa.table({"key": pa.array(keys, pa.uint64()), "bytes": sizes})


def _facts(batch: pa.Table, seed: int, limits: list[int], base: str | None) -> pa.Table:
    tokenizer = _tokenizer(base) if base else None
    found = []
    for place, line in zip(batch["place"].to_pylist(), batch["row"].to_pylist(), strict=True):
        key = _key(place, seed)
        if key <= limits[1]:
            shown = line if key <= limits[0] else None
            facts = row_facts(parse_row(line, place), place, tokenizer)
            found.append({"key": key, "place": place, "row": shown, "bytes": len(line), **facts})
    return pa.Table.from_pylist(found, FACTS)


@functools.cache
def _tokenizer(base: str) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    ensure_template(tokenizer)
    return tokenizer


def row_facts(
    row: dict[str, Any], place: str, tokenizer: "PreTrainedTokenizerBase | None"
) -> dict[str, Any]:
    """The tokens or characters of a row's turns, its tests, language, difficulty, licence and
    judge; None for what it has not. Nothing is run."""
    turns = turns_of(row, place)
    tests = num_tests(row)
    judge = row.get("judge")
    if judge is None and (tests or not is_answered(turns)):
        judge = "stdio" if row.get("tests") else "function" if tests else "compile"
    said = "\n".join(turn["content"] for turn in turns)
    return {
        "tokens": _num_tokens(tokenizer, turns) if tokenizer else None,
        "characters": len(said),
        "tests": tests if tests or not is_answered(turns) else None,
        "language": _name(row.get("language")) or fenced_language(said),
        "difficulty": _name(row.get("difficulty")),
        "licence": _name(row.get("license")),
        "judge": _name(judge),
    }


def _name(value: Any) -> str | None:
    return None if value is None else str(value).encode(errors="replace").decode()


def _num_tokens(tokenizer: "PreTrainedTokenizerBase", turns: list[Message]) -> int:
    try:
        told = tokenizer.apply_chat_template(turns, tokenize=False)
    except TemplateError:
        told = "\n".join(turn["content"] for turn in turns)
    told = str(told).encode(errors="replace").decode()
    return len(tokenizer.encode(told, add_special_tokens=False, verbose=False))


def num_tests(row: dict[str, Any]) -> int:
    """The tests of a problem: what its program reads and prints, or the asserts of its test code,
    which is one test where it has none or is no Python."""
    tests, code = row.get("tests"), row.get("test_code")
    if tests:
        return len(tests) if isinstance(tests, list) else 1
    if not isinstance(code, str) or not code.strip():
        return 0
    try:
        return max(1, len(asserts_of(code)))
    except ValueError:
        return 1


def fenced_language(text: str) -> str | None:
    """The language of the last block in `text` whose tag names one that is known."""
    found = [OPEN.match(line) for line in text.split("\n") if "```" in line]
    tags = [match["info"].split() for match in found if match]
    named = [language_of(tag[0]) for tag in tags if tag]
    return next((language for language in reversed(named) if language), None)
