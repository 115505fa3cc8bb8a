"""Samples and verdicts as Parquet shards, committed together by a manifest.

What no manifest names does not count: a process may end at any moment, and the folder is valid.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.errors import InfraError
from haloforge.schema import SAMPLE_SCHEMA, VERDICT_SCHEMA
from haloforge.store.run import write_atomic

_COMMIT_ROWS = 256
_COMMIT_SECONDS = 10.0


@dataclass(frozen=True)
class Judged:
    """A committed sample and its verdict, as rows of SAMPLE_SCHEMA and VERDICT_SCHEMA."""

    sample: dict[str, Any]
    verdict: dict[str, Any]


class ShardWriter:
    """Collects judged samples and commits them every 256 rows or 10 seconds, and on leaving."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._samples: list[dict[str, Any]] = []
        self._verdicts: list[dict[str, Any]] = []
        self._last_commit = time.monotonic()
        for name in ("samples", "verdicts", "commits"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._next = 1 + max((int(m.stem) for m in _manifests(folder)), default=0)

    def add(self, sample: dict[str, Any], verdict: dict[str, Any]) -> None:
        """Takes one sample and its verdict; they are safe after the next commit."""
        self._samples.append(sample)
        self._verdicts.append(verdict)
        waited = time.monotonic() - self._last_commit
        if len(self._samples) >= _COMMIT_ROWS or waited >= _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes both shards, then the manifest that makes them count."""
        if self._samples:
            shard = f"{self._next:06d}.parquet"
            _write(self._folder / "samples" / shard, self._samples, SAMPLE_SCHEMA)
            _write(self._folder / "verdicts" / shard, self._verdicts, VERDICT_SCHEMA)
            manifest = {"shard": shard, "rows": len(self._samples)}
            path = self._folder / "commits" / f"{self._next:06d}.json"
            write_atomic(path, json.dumps(manifest) + "\n")
            self._next += 1
            self._samples, self._verdicts = [], []
        self._last_commit = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.commit()


def read_judged(folder: Path) -> Iterator[Judged]:
    """Every committed sample with its verdict, shard by shard, in the order of commits."""
    for path in _manifests(folder):
        manifest = json.loads(path.read_text())
        samples = _read(folder / "samples" / manifest["shard"], SAMPLE_SCHEMA)
        verdicts = _read(folder / "verdicts" / manifest["shard"], VERDICT_SCHEMA)
        if not len(samples) == len(verdicts) == manifest["rows"]:
            raise InfraError(f"{path}: its shards hold other rows than it names")
        for sample, verdict in zip(samples, verdicts, strict=True):
            yield Judged(sample, verdict)


def committed_ids(folder: Path) -> set[str]:
    """The ids of all samples that are committed in `folder`."""
    ids: set[str] = set()
    for path in _manifests(folder):
        shard = folder / "samples" / json.loads(path.read_text())["shard"]
        ids.update(pq.read_table(shard, columns=["sample_id"])["sample_id"].to_pylist())
    return ids


def _manifests(folder: Path) -> list[Path]:
    return sorted((folder / "commits").glob("*.json"))


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    table = pa.Table.from_pylist(rows, schema=schema)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, partial, compression="zstd")
    with partial.open("rb") as handle:
        os.fsync(handle.fileno())
    partial.replace(path)


def _read(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    try:
        return pq.read_table(path, schema=schema).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise InfraError(f"{path}: a committed shard cannot be read ({error})") from error
