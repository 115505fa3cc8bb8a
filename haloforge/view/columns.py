"""The small columns of samples and verdicts as arrays, a row a sample; texts stay on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.schema import Outcome
from haloforge.view.sources import Commit, Source, stamp_of

Array = npt.NDArray[Any]
_SAMPLE = ("problem_id", "index", "num_tokens", "finish_reason")
_VERDICT = ("outcome", "reward", "tests_passed", "tests_total")
_NUMBERS = {
    "index": np.int32,
    "num_tokens": np.int32,
    "reward": np.float32,
    "tests_passed": np.int32,
    "tests_total": np.int32,
}
_NAMES = ("problem_id", "finish_reason", "outcome")
_CODED = pa.dictionary(pa.int32(), pa.string())
COLUMNS = (*_SAMPLE, *_VERDICT)
NOT_KEPT, NOT_CHOSEN_FROM = -1, -2
"""In the place of a rank: a sample that its cycle did not train on, and one of a folder that
nothing was trained from, or not yet."""


class Names:
    """Texts that repeat, each by a number: its place in `all`."""

    def __init__(self, *first: str) -> None:
        self.all: list[str] = list(first)
        self._codes = {name: code for code, name in enumerate(first)}

    def code(self, name: str) -> int:
        """That of `name`, which is new or not."""
        found = self._codes.setdefault(name, len(self.all))
        if found == len(self.all):
            self.all.append(name)
        return found

    def known(self, name: str) -> int:
        """That of `name`, -1 where it has none."""
        return self._codes.get(name, -1)


class Dictionary:
    """The names of problems, outcomes and reasons to end, over all shards."""

    def __init__(self) -> None:
        self.names = {name: Names() for name in _NAMES}
        self.names["outcome"] = Names(*Outcome)

    def __getitem__(self, column: str) -> Names:
        return self.names[column]


@dataclass(frozen=True)
class Shard:
    """The columns of one commit, in its rows' order, and which state of its files they are from."""

    source: Source
    commit: Commit
    stamp: tuple[int, ...]
    columns: dict[str, Array]

    def path(self, what: str) -> Path:
        """Its file of `samples` or `verdicts`."""
        return self.source.folder / what / self.commit.shard


def files_of(source: Source, commit: Commit) -> list[Path]:
    """Those of a commit, of which the verdicts are replaced in place."""
    return [source.folder / kind / commit.shard for kind in ("samples", "verdicts")]


def read_columns(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Columns of a Parquet file as Arrow has them, of the types that are expected; those of
    `_NAMES` as numbers with a dictionary. Raises OSError, pa.ArrowException where a column cannot
    be made of its type, ValueError where it is not there."""
    try:
        file = pq.ParquetFile(
            path,
            memory_map=True,
            read_dictionary=[name for name in names if name in _NAMES],
            page_checksum_verification=True,
        )
    except KeyError as error:  # of `read_dictionary`
        raise ValueError(f"it has not one column of texts {error}") from error
    with file:
        check_names(file, names)
        table = file.read(columns=list(names), use_threads=False)
    return {name: _typed(name, table[name]) for name in names}


def check_names(file: pq.ParquetFile, names: Sequence[str]) -> None:
    """Raises ValueError where the file has not one column of each of these names."""
    there = file.schema_arrow.names
    if wrong := [name for name in names if there.count(name) != 1]:
        raise ValueError(f"it has not one column '{wrong[0]}'")


def _typed(name: str, column: Any) -> Any:
    if name not in _NAMES:
        return column.cast(pa.from_numpy_dtype(_NUMBERS.get(name, np.int64)))
    if column.type == _CODED:
        return column
    return column.cast(pa.string()).dictionary_encode()


def read_shard(source: Source, commit: Commit) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The stamp and the columns of a commit. Raises OSError or pa.ArrowException, ValueError where
    its shards do not hold the rows that it names, or not its columns."""
    samples, verdicts = files = files_of(source, commit)
    stamp = stamp_of(*files)
    found = read_columns(samples, _SAMPLE)
    found |= read_columns(verdicts, _VERDICT)
    if any(len(column) != commit.rows for column in found.values()):
        raise ValueError("its shards hold other rows than its manifest names")
    return stamp, found


def as_arrays(tables: Sequence[dict[str, Any]], dictionary: Dictionary) -> list[dict[str, Array]]:
    """Of each of these tables, which have the same columns, numbers of fixed size; names by their
    codes in `dictionary`. All at once: shards of a run repeat the same names."""
    arrays: list[dict[str, Array]] = [{} for _ in tables]
    for name in tables[0] if tables else ():
        columns = [table[name] for table in tables]
        if name in _NAMES:
            found = _codes(columns, dictionary[name])
        else:
            found = [_numbers(column, _NUMBERS.get(name, np.int64)) for column in columns]
        for each, values in zip(arrays, found, strict=True):
            each[name] = values
    return arrays


def _numbers(column: Any, kind: Any) -> Array:
    numbers = column.combine_chunks()
    if numbers.null_count:
        numbers = numbers.fill_null(0)
    found: Array = numbers.to_numpy(zero_copy_only=False).astype(kind, copy=False)
    return found


def _codes(columns: Sequence[Any], names: Names) -> list[Array]:
    """Names may be no valid UTF-8, as anything in a file may."""
    ends = np.cumsum([len(column) for column in columns])
    if not ends[-1]:
        return [np.zeros(0, np.int32) for _ in columns]
    whole = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    whole = whole.unify_dictionaries()
    values = whole.chunk(0).dictionary.cast(pa.binary()).to_pylist()
    known = [names.code((raw or b"").decode(errors="replace")) for raw in values]
    if whole.null_count:
        known.append(names.code(""))
    codes = np.asarray(known, np.int32)
    parts = [_indices(chunk.indices, len(values)) for chunk in whole.chunks]
    return np.split(codes[np.concatenate(parts)], ends[:-1])


def _indices(indices: Any, missing: int) -> Array:
    if indices.null_count:
        indices = indices.fill_null(missing)
    found: Array = indices.to_numpy(zero_copy_only=False)
    return found
