"""Whole rows of samples, their texts too, read when they are asked for.

Texts are read as bytes: what a file holds need be no valid UTF-8.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.errors import InfraError, InputError
from haloforge.report.hostile import decoded
from haloforge.schema import SAMPLE_SCHEMA, VERDICT_SCHEMA
from haloforge.view.columns import NOT_KEPT
from haloforge.view.index import Index, Place, Table
from haloforge.view.sources import Source

_BATCH_ROWS = 512
_SCHEMAS = {"samples": SAMPLE_SCHEMA, "verdicts": VERDICT_SCHEMA}
_IDS = ("sample_id",)
_T = TypeVar("_T")


class GoneError(Exception):
    """A shard is not there any more, as compacting leaves it: look again."""


class Whole(NamedTuple):
    """A sample with its verdict, as rows of SAMPLE_SCHEMA and VERDICT_SCHEMA."""

    row: int
    source: Source
    sample: dict[str, Any]
    verdict: dict[str, Any]
    raw: dict[str, bytes]
    """The bytes of `completion` and `diagnostics`, as they are stored."""
    damaged: list[str]
    """The columns that hold no valid UTF-8: what is no character is a � in their text."""
    rank: int | None
    """That in its own cycle's training set."""
    trained_in: dict[int, int]


def read_places(places: Sequence[Place], what: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Columns `names` of `samples` or `verdicts` for each of `places`; strings are bytes. A shard
    is read to its last row that is asked for, some hundred rows at a time.

    Raises GoneError where a shard has been replaced, InfraError where it cannot be read.
    """
    wanted: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    for number, place in enumerate(places):
        wanted[place.shard.path(what)].append((place.row, number))
    found: list[dict[str, Any]] = [{} for _ in places]
    for path, rows in wanted.items():
        try:
            for number, row in _read(path, sorted(rows), names):
                found[number] = row
        except FileNotFoundError as error:
            raise GoneError(str(path)) from error
        except (OSError, pa.ArrowException) as error:
            raise InfraError(f"{path}: a committed shard cannot be read ({error})") from error
    if not all(found):
        raise InfraError("a committed shard holds fewer rows than its manifest names")
    return found


def _read(
    path: Path, rows: list[tuple[int, int]], names: Sequence[str]
) -> Iterable[tuple[int, dict[str, Any]]]:
    """The rows of one file; `rows` are places in it, in rising order, and a number to tell them."""
    begin = 0
    with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(names), use_threads=False):
            end = begin + batch.num_rows
            here = [each for each in rows if begin <= each[0] < end]
            if here:
                taken = batch.take(pa.array([row - begin for row, _ in here]))
                columns = {name: _values(taken[name]) for name in names}
                for place, (_, number) in enumerate(here):
                    yield number, {name: column[place] for name, column in columns.items()}
            begin = end
            if begin > rows[-1][0]:
                return


def _values(column: Any) -> list[Any]:
    is_text = pa.types.is_string(column.type)
    values: list[Any] = (column.cast(pa.binary()) if is_text else column).to_pylist()
    return values


def diagnostics_of(table: Table, rows: Sequence[int]) -> list[str]:
    """What was said of each sample by compilers and tests."""
    places = [table.place(row) for row in rows]
    found = read_places(places, "verdicts", ["diagnostics"])
    return [decoded(each["diagnostics"]) for each in found]


def answers_of(table: Table, rows: Sequence[int]) -> list[str]:
    """The completion of each sample."""
    places = [table.place(row) for row in rows]
    found = read_places(places, "samples", ["completion"])
    return [decoded(each["completion"]) for each in found]


def whole_rows(table: Table, rows: Sequence[int]) -> list[Whole]:
    """All that is stored of each sample. Raises what `read_places` does, and InfraError where a
    verdict is not that of its sample."""
    places = [table.place(row) for row in rows]
    samples = read_places(places, "samples", SAMPLE_SCHEMA.names)
    verdicts = read_places(places, "verdicts", VERDICT_SCHEMA.names)
    found = []
    for row, place, sample, verdict in zip(rows, places, samples, verdicts, strict=True):
        if sample["sample_id"] != verdict["sample_id"]:
            raise InfraError(f"{place.shard.path('verdicts')}: its rows are not those of samples")
        raw = {
            "completion": sample["completion"] or b"",
            "diagnostics": verdict["diagnostics"] or b"",
        }
        damaged = [name for each in (sample, verdict) for name in each if _is_damaged(each[name])]
        rank = int(table.columns["rank"][row])
        found.append(
            Whole(
                row,
                table.source(row),
                {name: _text(value) for name, value in sample.items()},
                {name: _text(value) for name, value in verdict.items()},
                raw,
                list(dict.fromkeys(damaged)),
                rank if rank > NOT_KEPT else None,
                table.trained_in(row),
            )
        )
    return found


def row_of_id(table: Table, name: str) -> int | None:
    """The row of the sample with this id; the ids of all are read for it."""
    wanted = pa.scalar(name.encode(), pa.binary())
    for number, shard in enumerate(table.shards):
        try:
            with pq.ParquetFile(shard.path("samples"), memory_map=True) as file:
                ids = file.read(columns=list(_IDS), use_threads=False)["sample_id"]
        except FileNotFoundError as error:
            raise GoneError(str(shard.path("samples"))) from error
        place = ids.cast(pa.binary()).index(wanted).as_py()
        if place >= 0:
            return int(table.begins[number]) + place
    return None


def latest(index: Index, use: Callable[[Table], _T]) -> _T:
    """What `use` makes of the table, which it is given anew where shards were compacted meanwhile.

    Raises InputError where they go on to disappear."""
    gone = ""
    for now in (False, True, True):
        try:
            return use(index.table(now))
        except GoneError as error:
            gone = str(error)
    raise InputError(f"{gone}: a shard is gone while it is read")


def _text(value: Any) -> Any:
    return decoded(value) if isinstance(value, bytes) else value


def _is_damaged(value: Any) -> bool:
    if not isinstance(value, bytes):
        return False
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False
