"""Samples and verdicts as Parquet shards, committed together by a manifest.

What no manifest names does not count: a process may end at any moment, and the folder is valid.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.errors import InfraError
from haloforge.schema import SAMPLE_SCHEMA, VERDICT_SCHEMA, Outcome
from haloforge.store.run import write_atomic

_COMMIT_ROWS = 256
_COMMIT_SECONDS = 10.0
_IDS = pa.schema([SAMPLE_SCHEMA.field("sample_id")])
_OUTCOMES = pa.schema(
    [VERDICT_SCHEMA.field(name) for name in ("sample_id", "outcome", "raw_outcome")]
)


@dataclass(frozen=True)
class Judged:
    """A committed sample and its verdict, as rows of SAMPLE_SCHEMA and VERDICT_SCHEMA."""

    sample: dict[str, Any]
    verdict: dict[str, Any]


class ShardWriter:
    """Collects judged samples and commits them every 256 rows or 10 seconds, and on leaving.

    A new verdict of a sample that was lost to a failure of ours takes the place of that.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._samples: list[dict[str, Any]] = []
        self._verdicts: list[dict[str, Any]] = []
        self._last_commit = time.monotonic()
        for name in ("samples", "verdicts", "commits"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._next = 1 + max((int(m.stem) for m in _manifests(folder)), default=0)
        self._lost = lost_ids(folder)
        self._again: dict[str, dict[str, Any]] = {}

    def add(self, sample: dict[str, Any], verdict: dict[str, Any]) -> None:
        """Takes one sample and its verdict; they are safe after the next commit."""
        if sample["sample_id"] in self._lost:
            self._again[sample["sample_id"]] = verdict
        else:
            self._samples.append(sample)
            self._verdicts.append(verdict)
        waited = time.monotonic() - self._last_commit
        if len(self._samples) + len(self._again) >= _COMMIT_ROWS or waited >= _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes both shards, then the manifest that makes them count."""
        if self._samples:
            shard = f"{self._next:06d}.parquet"
            _write(self._folder / "samples" / shard, self._samples, SAMPLE_SCHEMA)
            _write(self._folder / "verdicts" / shard, self._verdicts, VERDICT_SCHEMA)
            seconds = round(time.monotonic() - self._last_commit, 3)
            manifest = {"shard": shard, "rows": len(self._samples), "seconds": seconds}
            path = self._folder / "commits" / f"{self._next:06d}.json"
            write_atomic(path, json.dumps(manifest) + "\n")
            self._next += 1
            self._samples, self._verdicts = [], []
        if self._again:
            self._replace()
            self._again = {}
        self._last_commit = time.monotonic()

    def _replace(self) -> None:
        """Each shard of verdicts at once: its rows stay those that its manifest counts."""
        for path in _manifests(self._folder):
            shard = self._folder / "verdicts" / json.loads(path.read_text())["shard"]
            before = _read(shard, VERDICT_SCHEMA)
            after = [self._again.get(row["sample_id"], row) for row in before]
            if after != before:
                _write(shard, after, VERDICT_SCHEMA)

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


def in_order(judged: Iterable[Judged]) -> Iterator[Judged]:
    """The rows by the `index` of their samples, which count from 0. Only those that came before
    their turn are held: about as many as were judged while the slowest was."""
    early: dict[int, Judged] = {}
    turn = 0
    for row in judged:
        early[row.sample["index"]] = row
        while turn in early:
            yield early.pop(turn)
            turn += 1
    if early:
        raise InfraError(f"the sample at {turn} was not judged, but {len(early)} after it were")


def committed_ids(folder: Path) -> set[str]:
    """The ids of all samples that are committed in `folder`."""
    ids: set[str] = set()
    for shard in sample_shards(folder):
        ids.update(row["sample_id"] for row in _read(shard, _IDS))
    return ids


def lost_ids(folder: Path) -> set[str]:
    """The ids of the committed samples that a failure of ours kept from being judged."""
    ids: set[str] = set()
    for path in _manifests(folder):
        shard = folder / "verdicts" / json.loads(path.read_text())["shard"]
        rows = _read(shard, _OUTCOMES)
        ids.update(row["sample_id"] for row in rows if is_lost(row))
    return ids


def is_lost(verdict: dict[str, Any]) -> bool:
    """Whether a failure of ours kept something about the sample from being judged."""
    return Outcome.INFRA_ERROR in (verdict["outcome"], verdict.get("raw_outcome"))


def working_seconds(folder: Path) -> float:
    """Wall seconds in which the committed samples were made and judged, over all sittings; what a
    stopped sitting did not commit is not in it, nor is the start of engines."""
    return sum(json.loads(path.read_text()).get("seconds", 0.0) for path in _manifests(folder))


def sample_shards(folder: Path) -> list[Path]:
    """The committed shards of samples in `folder`, in the order of commits."""
    return [
        folder / "samples" / json.loads(path.read_text())["shard"] for path in _manifests(folder)
    ]


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
