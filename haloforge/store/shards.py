"""Samples and verdicts as Parquet shards, committed together by a manifest.

What no manifest names does not count: a process may end at any moment, and the folder is valid.
Pages carry checksums (Parquet's own, CRC-32), so that what a disk has spoilt is seen when it is
read.
"""

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import EIO, ENOENT
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.errors import InfraError
from haloforge.schema import SAMPLE_SCHEMA, VERDICT_SCHEMA, Outcome
from haloforge.store.remote import removed, renamed, saved, tag_of
from haloforge.store.run import TORN, write_atomic

COMMIT_ROWS = 4096
_COMMIT_SECONDS = 10.0
_LOOK_SECONDS = 0.5
_IDS = pa.schema([SAMPLE_SCHEMA.field("sample_id")])
_KEYS = pa.schema([SAMPLE_SCHEMA.field(name) for name in ("problem_id", "index")])
_OUTCOMES = pa.schema(
    [VERDICT_SCHEMA.field(name) for name in ("sample_id", "outcome", "raw_outcome")]
)


@dataclass(frozen=True)
class Judged:
    """A committed sample and its verdict, as rows of SAMPLE_SCHEMA and VERDICT_SCHEMA."""

    sample: dict[str, Any]
    verdict: dict[str, Any]


class ShardWriter:
    """Collects judged samples and commits them every 4,096 rows or 10 seconds, and on leaving.

    A new verdict of a sample that was lost to a failure of ours takes the place of that.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._samples: list[dict[str, Any]] = []
        self._verdicts: list[dict[str, Any]] = []
        self._last_commit = time.monotonic()
        for name in ("samples", "verdicts", "commits"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._next = 1 + max((int(m.name.partition(".")[0]) for m in _ever(folder)), default=0)
        self._lost = _lost(folder)
        self._again: dict[str, dict[str, Any]] = {}
        self._turn = threading.RLock()
        self._left = threading.Event()
        self._clock = threading.Thread(target=self._commit_in_time, daemon=True)
        self._failure: Exception | None = None

    def add(self, sample: dict[str, Any], verdict: dict[str, Any]) -> None:
        """Takes one sample and its verdict; they are safe after the next commit."""
        with self._turn:
            if self._failure is not None:
                raise self._failure
            if sample["sample_id"] in self._lost:
                self._again[sample["sample_id"]] = verdict
            else:
                self._samples.append(sample)
                self._verdicts.append(verdict)
            if len(self._samples) + len(self._again) >= COMMIT_ROWS:
                self.commit()

    def _commit_in_time(self) -> None:
        """In a thread of its own: after the last sample of a burst none may come for minutes. What
        keeps it from a commit is raised by the next `add`, or by the last commit if it lasts."""
        while not self._left.wait(_LOOK_SECONDS):
            with self._turn:
                waited = time.monotonic() - self._last_commit
                if not (self._samples or self._again) or waited < _COMMIT_SECONDS:
                    continue
                try:
                    self.commit()
                except Exception as error:
                    self._failure = error
                    return

    def commit(self) -> None:
        """Writes both shards, then the manifest that makes them count."""
        with self._turn:
            self._commit()

    def _commit(self) -> None:
        if self._samples:
            shard = _shard_name(self._folder, self._next)
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
        for shard in sorted({self._lost[name] for name in self._again}):
            before = _read(shard, VERDICT_SCHEMA)
            after = [self._again.get(row["sample_id"], row) for row in before]
            _write(shard, after, VERDICT_SCHEMA)

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._clock.join()
        self.commit()


def read_judged(folder: Path) -> Iterator[Judged]:
    """Every committed sample with its verdict, shard by shard, in the order of commits."""
    for path in _manifests(folder):
        manifest = _told(path)
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


def committed_keys(folder: Path) -> Iterator[tuple[str, int]]:
    """Problem and index of each sample that is committed in `folder`."""
    for shard in sample_shards(folder):
        for row in _read(shard, _KEYS):
            yield row["problem_id"], row["index"]


def lost_ids(folder: Path) -> set[str]:
    """The ids of the committed samples that a failure of ours kept from being judged."""
    return set(_lost(folder))


def _lost(folder: Path) -> dict[str, Path]:
    """Of each of those the shard that its verdict is in."""
    found: dict[str, Path] = {}
    for path in _manifests(folder):
        shard = folder / "verdicts" / _told(path)["shard"]
        found.update((row["sample_id"], shard) for row in _read(shard, _OUTCOMES) if is_lost(row))
    return found


def is_lost(verdict: dict[str, Any]) -> bool:
    """Whether a failure of ours kept something about the sample from being judged."""
    return Outcome.INFRA_ERROR in (verdict["outcome"], verdict.get("raw_outcome"))


def working_seconds(folder: Path) -> float:
    """Wall seconds in which the committed samples were made and judged, over all sittings; what a
    stopped sitting did not commit is not in it, nor is the start of engines. Nor are the seconds of
    a manifest that cannot be read: where a cycle has ended, nothing makes its samples anew."""
    told: dict[str, dict[str, Any]] = {}
    for path in _ever(folder):
        if path.suffix == ".json":
            with suppress(InfraError):
                told[path.stem] = _told(path)
    replaced = {name for each in told.values() for name in each.get("replaces", [])}
    return sum(told[name].get("seconds", 0.0) for name in told if name not in replaced)


def sample_shards(folder: Path) -> list[Path]:
    """The committed shards of samples in `folder`, in the order of commits."""
    return [folder / "samples" / _told(path)["shard"] for path in _manifests(folder)]


def set_torn_aside(folder: Path) -> list[Path]:
    """Takes commits that cannot be read out of what counts, under names that end in `.torn`, and
    returns their manifests. What they held is then as if it had never been made."""
    torn = [path for path in _ever(folder) if not path.name.endswith(TORN) and not _is_whole(path)]
    for path in torn:
        # First: now the rest does not count.
        renamed(path, path.rename(path.with_name(path.name + TORN)))
        for kind in ("samples", "verdicts"):
            for shard in sorted((folder / kind).glob("*.parquet")):
                if _number(shard.name) == path.stem:
                    renamed(shard, shard.rename(shard.with_name(shard.name + TORN)))
    return torn


def _is_whole(manifest: Path) -> bool:
    try:
        told = _told(manifest)
        shards = [(manifest.parents[1] / kind / told["shard"]) for kind in ("samples", "verdicts")]
        read = [_read(shards[0], SAMPLE_SCHEMA), _read(shards[1], VERDICT_SCHEMA)]
        return all(len(rows) == told["rows"] for rows in read)
    except (InfraError, ValueError, KeyError, TypeError) as error:
        cause = error.__cause__
        if isinstance(cause, MemoryError) or (
            isinstance(cause, OSError) and cause.errno not in (None, ENOENT, EIO)
        ):
            raise  # it may be read the next time: too many open files, a share that is away
        return False


def compact(folder: Path, least: int = 16) -> None:
    """Puts neighbouring small commits together where there are `least` or more, as slow sampling
    and many stops leave them, and deletes shards that no commit names. Rows stay as they are. Not
    while a ShardWriter is open: its shards are there before the commit that names them."""
    together: list[dict[str, Any]] = []
    for path in [*_manifests(folder), None]:
        told = _told(path) if path else None
        rows = sum(each["rows"] for each in together)
        if told and rows + told["rows"] <= COMMIT_ROWS:
            together.append(told)
            continue
        if len(together) >= least:
            _merge(folder, together)
        together = [told] if told else []
    replaced = {name for path in _ever(folder) for name in _replaces(path)}
    for path in _ever(folder):
        if path.stem in replaced:
            path.unlink()
            removed(path)
    _clear(folder)


def _clear(folder: Path) -> None:
    """Deletes what no commit names, as a kill leaves it."""
    named = {path.name.partition(".")[0] for path in _ever(folder)}
    for kind in ("samples", "verdicts"):
        for shard in (folder / kind).glob("*.parquet*"):
            if shard.suffix == ".tmp" or (
                shard.suffix != TORN and _number(shard.name) not in named
            ):
                shard.unlink(missing_ok=True)
                removed(shard)


def _merge(folder: Path, commits: Sequence[dict[str, Any]]) -> None:
    """One commit in the place of several, from the moment that its manifest is there."""
    number = 1 + max(int(m.name.partition(".")[0]) for m in _ever(folder))
    shard = _shard_name(folder, number)
    for kind, schema in (("samples", SAMPLE_SCHEMA), ("verdicts", VERDICT_SCHEMA)):
        rows = [row for told in commits for row in _read(folder / kind / told["shard"], schema)]
        _write(folder / kind / shard, rows, schema)
    manifest = {
        "shard": shard,
        "rows": sum(told["rows"] for told in commits),
        "seconds": round(sum(told.get("seconds", 0.0) for told in commits), 3),
        "replaces": [_number(told["shard"]) for told in commits],
    }
    write_atomic(folder / "commits" / f"{number:06d}.json", json.dumps(manifest) + "\n")


def _shard_name(folder: Path, number: int) -> str:
    """That of a new commit's shards, `000012.parquet`; in object storage, which cannot keep a
    second driver out for certain, with the driver's tag: `000012-1f0c22ab.parquet`."""
    return f"{number:06d}{tag_of(folder)}.parquet"


def _number(shard: str) -> str:
    """The name of the commit that `shard` belongs to."""
    return shard.partition(".")[0].partition("-")[0]


def _told(manifest: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(manifest.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InfraError(f"{manifest}: a manifest cannot be read ({error})") from error


def _replaces(path: Path) -> list[str]:
    """The commits that the manifest at `path` stands in the place of."""
    if path.name.endswith(TORN):
        return []
    names: list[str] = _told(path).get("replaces", [])
    return names


def _manifests(folder: Path) -> list[Path]:
    """The manifests that count, in the order of commits."""
    standing = [path for path in _ever(folder) if path.suffix == ".json"]
    replaced = {name for path in standing for name in _replaces(path)}
    return [path for path in standing if path.stem not in replaced]


def _ever(folder: Path) -> list[Path]:
    """Those, those that were replaced, and those that were set aside."""
    found = (folder / "commits").glob("*.json*")
    return sorted(path for path in found if path.suffix in (".json", TORN))


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    table = pa.Table.from_pylist(rows, schema=schema)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    with partial.open("rb") as handle:
        os.fsync(handle.fileno())
    partial.replace(path)
    saved(path)


def _read(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path, schema=schema, page_checksum_verification=True)
        return table.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InfraError(f"{path}: a committed shard cannot be read ({error})") from error
