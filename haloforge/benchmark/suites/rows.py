"""A suite's data on this machine: where it is, its rows, and the digest of what was read."""

import gzip
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.data.rows import Row
from haloforge.errors import InputError


def find(folders: list[Path], patterns: tuple[str, ...]) -> list[Path]:
    """The files of the first pattern that has some in the first folder; each may end in `.gz`."""
    for folder in folders:
        for pattern in patterns:
            found = {*folder.glob(pattern), *folder.glob(f"{pattern}.gz")}
            if found:
                return sorted(found)
    return []


def in_package(package: str, name: str) -> list[Path]:
    """The file `name` of an installed package, found without importing it; empty if missing."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return [path for folder in folders or () if (path := Path(folder) / name).is_file()]


class Reader:
    """The rows of `files`, JSON lines or Parquet; JSON lines may be packed with gzip.

    When all are read, `sha256` is the digest of the files' bytes, unpacked, one after another.
    """

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._sha = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest()

    def __iter__(self) -> Iterator[Row]:
        for path in self._files:
            try:
                yield from self._parquet(path) if path.suffix == ".parquet" else self._lines(path)
            except (OSError, EOFError, pa.ArrowException) as error:
                reason = str(error).strip().splitlines()[0]
                raise InputError(f"{path}: cannot be read ({reason})") from None

    def _lines(self, path: Path) -> Iterator[Row]:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                self._sha.update(line)
                if not line.strip():
                    continue
                place = f"{path}, line {number}"
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{place}: not valid JSON ({error})") from None
                if not isinstance(row, dict):
                    raise InputError(f"{place}: expected a JSON object")
                yield Row(row, place)

    def _parquet(self, path: Path) -> Iterator[Row]:
        self._sha.update(path.read_bytes())
        with pq.ParquetFile(path) as parquet:
            rows = (row for batch in parquet.iter_batches() for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield Row(row, f"{path}, row {number}")
