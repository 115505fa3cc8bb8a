"""Whole rows of samples, their texts too, read when they are asked for.

Texts are read as bytes: what a file holds need be no valid UTF-8.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.errors import InfraError, InputError
from haloforge.report.hostile import decoded
from haloforge.schema import SAMPLE_SCHEMA, VERDICT_SCHEMA
from haloforge.view.columns import NOT_KEPT, check_names
from haloforge.view.index import Index, Place, Table
from haloforge.view.sources import Source

_BATCH_ROWS = 512
_SCHEMAS = {"samples": SAMPLE_SCHEMA, "verdicts": VERDICT_SCHEMA}
_MAY_BE_NULL = ("logprob_sum", "raw_outcome")
_UNREADABLE = (OSError, ValueError, pa.ArrowException)
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
    faults: dict[str, str]
    """The columns that cannot be read, and why: the rest is shown."""
    rank: int | None
    """That in its own cycle's training set."""
    trained_in: dict[int, int]


def read_places(
    places: Sequence[Place], what: str, names: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[Path, dict[str, str]]]:
    """Columns `names` of `samples` or `verdicts` for each of `places`; strings are bytes. A shard
    is read to its last row that is asked for, some hundred rows at a time. And of each shard what
    cannot be read: of its rows those columns are None.

    Raises GoneError where a shard has been replaced.
    """
    wanted: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    for number, place in enumerate(places):
        wanted[place.shard.path(what)].append((place.row, number))
    found: list[dict[str, Any]] = [dict.fromkeys(names) for _ in places]
    faults: dict[Path, dict[str, str]] = {}
    for path, rows in wanted.items():
        rows.sort()
        try:
            _read_into(found, path, rows, what, names)
        except _UNREADABLE:
            for name in names:
                try:
                    _read_into(found, path, rows, what, [name])
                except _UNREADABLE as error:
                    told = f"{path}: {name} cannot be read ({error})"
                    faults.setdefault(path, {})[name] = told
    return found, faults


def _read_into(
    found: list[dict[str, Any]],
    path: Path,
    rows: list[tuple[int, int]],
    what: str,
    names: Sequence[str],
) -> None:
    try:
        read = dict(_read(path, rows, what, names))
    except FileNotFoundError as error:
        raise GoneError(str(path)) from error
    if len(read) < len(rows):
        raise ValueError("it holds fewer rows than its manifest names")
    for number, row in read.items():
        found[number].update(row)


def _read(
    path: Path, rows: list[tuple[int, int]], what: str, names: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of one file; `rows` are places in it, in rising order, and a number to tell them."""
    begin = 0
    with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
        check_names(file, names)
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(names), use_threads=False):
            end = begin + batch.num_rows
            here = [each for each in rows if begin <= each[0] < end]
            if here:
                taken = batch.take(pa.array([row - begin for row, _ in here]))
                kinds = _SCHEMAS[what]
                columns = {name: _values(taken[name], kinds.field(name).type) for name in names}
                for place, (_, number) in enumerate(here):
                    yield number, {name: column[place] for name, column in columns.items()}
            begin = end
            if begin > rows[-1][0]:
                return


def _values(column: Any, kind: pa.DataType) -> list[Any]:
    values: list[Any] = column.cast(pa.binary() if pa.types.is_string(kind) else kind).to_pylist()
    return values


def diagnostics_of(table: Table, rows: Sequence[int]) -> list[str]:
    """What was said of each sample by compilers and tests; what is wrong, where that cannot be
    read."""
    return _texts(table, rows, "verdicts", "diagnostics")


def answers_of(table: Table, rows: Sequence[int]) -> list[str]:
    """The completion of each sample; what is wrong, where that cannot be read."""
    return _texts(table, rows, "samples", "completion")


def _texts(table: Table, rows: Sequence[int], what: str, name: str) -> list[str]:
    places = [table.place(row) for row in rows]
    found, faults = read_places(places, what, [name])
    wrong = [faults.get(place.shard.path(what)) for place in places]
    return [
        decoded(each[name]) if fault is None else fault[name]
        for each, fault in zip(found, wrong, strict=True)
    ]


def whole_rows(table: Table, rows: Sequence[int]) -> list[Whole]:
    """All that is stored of each sample. Raises what `read_places` does, and InfraError where a
    verdict is not that of its sample."""
    places = [table.place(row) for row in rows]
    samples, wrong = read_places(places, "samples", SAMPLE_SCHEMA.names)
    verdicts, wrong_too = read_places(places, "verdicts", VERDICT_SCHEMA.names)
    found = []
    for row, place, sample, verdict in zip(rows, places, samples, verdicts, strict=True):
        ids = (sample["sample_id"], verdict["sample_id"])
        if None not in ids and ids[0] != ids[1]:
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
                _filled(sample, SAMPLE_SCHEMA, table, row),
                _filled(verdict, VERDICT_SCHEMA, table, row),
                raw,
                list(dict.fromkeys(damaged)),
                {
                    **wrong.get(place.shard.path("samples"), {}),
                    **wrong_too.get(place.shard.path("verdicts"), {}),
                },
                rank if rank > NOT_KEPT else None,
                table.trained_in(row),
            )
        )
    return found


def _filled(values: dict[str, Any], schema: pa.Schema, table: Table, row: int) -> dict[str, Any]:
    """Texts for bytes; where there is nothing though there has to be, what the index knows, or
    else what is empty of that type."""
    found = {}
    for name, value in values.items():
        kind = schema.field(name).type
        if value is None and name not in _MAY_BE_NULL:
            if pa.types.is_string(kind):
                value = table.name(name, row) if name in table.columns else ""
            elif name in table.columns:
                value = table.columns[name][row].item()
            else:
                value = kind.to_pandas_dtype()().item()
        found[name] = _text(value)
    return found


def row_of_id(table: Table, name: str) -> int | None:
    """The row of the sample with this id; the ids of all are read for it. Raises GoneError where a
    shard has been replaced, InfraError where it may be in one that cannot be read."""
    wanted = pa.scalar(name.encode(), pa.binary())
    wrong = ""
    for number, shard in enumerate(table.shards):
        path = shard.path("samples")
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                check_names(file, ["sample_id"])
                ids = file.read(columns=["sample_id"], use_threads=False)["sample_id"]
            place = ids.cast(pa.binary()).index(wanted).as_py()
        except FileNotFoundError as error:
            raise GoneError(str(path)) from error
        except _UNREADABLE as error:
            wrong = wrong or f"{path}: its ids cannot be read ({error})"
            continue
        if place >= 0:
            return int(table.begins[number]) + place
    if wrong:
        raise InfraError(wrong)
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
