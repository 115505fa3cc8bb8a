"""All samples of a run by their small columns; a run that goes on is taken up as it grows."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from haloforge.raft.training_set import TRAINED
from haloforge.view.columns import (
    COLUMNS,
    NOT_CHOSEN_FROM,
    NOT_KEPT,
    Array,
    Dictionary,
    Shard,
    as_arrays,
    files_of,
    read_columns,
    read_shard,
)
from haloforge.view.sources import (
    SAMPLES,
    Commit,
    Manifest,
    Source,
    commits,
    find_sources,
    stamp_of,
)

_THREADS = 4
_LOOK_S = 2.0
_LISTINGS = 3
_TRAINED = ("problem_id", "cycle", "index", "rank")
_UNREADABLE = (OSError, ValueError, pa.ArrowException)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Trained:
    """What a cycle trained on, a row a sample: `cycle` is that of the sample."""

    source: Source
    stamp: tuple[int, ...]
    columns: dict[str, Array]


class Place(NamedTuple):
    """Where a sample is: its shard, and its row in there."""

    shard: Shard
    row: int


@dataclass(frozen=True)
class Table:
    """The samples at one moment; a request works on one of these. Row numbers count over all
    shards in the order of sources and commits."""

    number: int
    sources: list[Source]
    shards: list[Shard]
    begins: Array
    """The first row of each shard, and the number of all."""
    columns: dict[str, Array]
    """COLUMNS, `source` (a place in `sources`), and `rank`: that in its own cycle's training set,
    NOT_KEPT, or NOT_CHOSEN_FROM."""
    trained: list[Trained]
    dictionary: Dictionary
    faults: list[str]

    def __len__(self) -> int:
        return int(self.begins[-1])

    def place(self, row: int) -> Place:
        """Where the sample in `row` is stored."""
        shard = int(np.searchsorted(self.begins, row, side="right")) - 1
        return Place(self.shards[shard], row - int(self.begins[shard]))

    def source(self, row: int) -> Source:
        """The folder that it is from."""
        return self.sources[int(self.columns["source"][row])]

    def name(self, column: str, row: int) -> str:
        """The text of a column of names in `row`."""
        return self.dictionary[column].all[int(self.columns[column][row])]

    def find(self, source: str, problem: str, index: int) -> int | None:
        """The row of a sample; None where there is none."""
        keys = [each.key for each in self.sources]
        if source not in keys:
            return None
        columns = self.columns
        first, last = np.searchsorted(
            columns["source"], [keys.index(source), keys.index(source) + 1]
        )
        mask = columns["problem_id"][first:last] == self.dictionary["problem_id"].known(problem)
        found = np.flatnonzero(mask & (columns["index"][first:last] == index))
        return int(first + found[0]) if len(found) else None

    def trained_in(self, row: int) -> dict[int, int]:
        """The rank of a sample in the training set of each cycle that has it."""
        source, ranks = self.source(row), {}
        for trained in self.trained:
            if trained.source.kind != source.kind or trained.source.cycle is None:
                continue
            rows = trained.columns
            mask = rows["problem_id"] == self.columns["problem_id"][row]
            mask &= (rows["cycle"] == source.cycle) & (rows["index"] == self.columns["index"][row])
            if len(found := np.flatnonzero(mask)):
                ranks[trained.source.cycle] = int(rows["rank"][found[0]])
        return ranks


class Index:
    """Reads each shard once; of those whose verdicts were judged again the new ones."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._dictionary = Dictionary()
        self._shards: dict[tuple[str, str], Shard] = {}
        self._trained: dict[str, Trained] = {}
        self._manifests: dict[str, dict[str, Manifest]] = {}
        self._turn = threading.Lock()
        self._looked = 0.0
        self._table: Table | None = None

    def table(self, now: bool = False) -> Table:
        """The samples as they are `now`, or were two seconds ago at most. Raises InputError where
        the folder is gone."""
        with self._turn:
            if self._table is None or now or time.monotonic() - self._looked > _LOOK_S:
                self._table = self._read()
                self._looked = time.monotonic()
            return self._table

    def _read(self) -> Table:
        changed = False
        for _ in range(_LISTINGS):
            faults: list[str] = []
            sources = find_sources(self.run, faults)
            wanted, gone = self._listed(sources, faults)
            new, missing = self._take_up(wanted, faults)
            changed |= new
            if not gone and not missing:
                break
        else:
            faults.append(f"{self.run}: shards go while they are read; some are left out")
        trained_changed = self._take_up_trained(sources, faults)
        before = self._table
        if before is not None and not changed and not trained_changed:
            same = before.sources == sources and before.faults == faults
            if same:
                return before
        keys = [(source.key, commit.shard) for source, commit in wanted]
        shards = [self._shards[key] for key in keys if key in self._shards]
        self._shards = {key: self._shards[key] for key in keys if key in self._shards}
        return self._assembled(sources, shards, faults)

    def _listed(
        self, sources: list[Source], faults: list[str]
    ) -> tuple[list[tuple[Source, Commit]], bool]:
        """The commits of all sources, and whether one went meanwhile."""
        wanted: list[tuple[Source, Commit]] = []
        gone = False
        for source in sources:
            listing = commits(source, self._manifests.setdefault(source.key, {}))
            wanted += [(source, commit) for commit in listing.commits]
            faults += listing.faults
            gone |= listing.gone
        return wanted, gone

    def _take_up(self, wanted: list[tuple[Source, Commit]], faults: list[str]) -> tuple[bool, bool]:
        """Reads what is new; whether anything is, or something is gone; and whether a commit was
        compacted since it was listed."""

        def read(what: tuple[Source, Commit]) -> Any:
            source, commit = what
            before = self._shards.get((source.key, commit.shard))
            if before is not None and before.stamp == stamp_of(*files_of(source, commit)):
                return None
            return read_shard(source, commit)

        gone = len(self._shards.keys() - {(source.key, commit.shard) for source, commit in wanted})
        changed, missing = bool(gone), False
        new: list[tuple[Source, Commit, tuple[int, ...]]] = []
        tables = []
        for (source, commit), found in _each(read, wanted):
            key = (source.key, commit.shard)
            if isinstance(found, FileNotFoundError) and not commit.manifest.exists():
                self._shards.pop(key, None)
                changed = missing = True
            elif isinstance(found, Exception):
                path = source.folder / "samples" / commit.shard
                faults.append(f"{path}: a committed shard cannot be read ({found}); left out")
                changed = self._shards.pop(key, None) is not None or changed
            elif found is not None:
                new.append((source, commit, found[0]))
                tables.append(found[1])
        arrays = as_arrays(tables, self._dictionary)
        for (source, commit, stamp), columns in zip(new, arrays, strict=True):
            self._shards[source.key, commit.shard] = Shard(source, commit, stamp, columns)
        return changed or bool(new), missing

    def _take_up_trained(self, sources: list[Source], faults: list[str]) -> bool:
        """The same of what cycles trained on."""

        def read(source: Source) -> Any:
            path = source.folder / TRAINED
            if not path.is_file():
                return None
            stamp = stamp_of(path)
            before = self._trained.get(source.key)
            if before is not None and before.stamp == stamp:
                return before
            return stamp, read_columns(path, _TRAINED)

        now: dict[str, Trained] = {}
        chosen = [source for source in sources if source.kind.rpartition("/")[2] == SAMPLES]
        for source, found in _each(read, chosen):
            if isinstance(found, Exception):
                faults.append(f"{source.folder / TRAINED}: cannot be read ({found}); left out")
            elif isinstance(found, Trained):
                now[source.key] = found
            elif found is not None:
                columns = as_arrays([found[1]], self._dictionary)[0]
                now[source.key] = Trained(source, found[0], columns)
        before = {key: trained.stamp for key, trained in self._trained.items()}
        self._trained = now
        return before != {key: trained.stamp for key, trained in now.items()}

    def _assembled(self, sources: list[Source], shards: list[Shard], faults: list[str]) -> Table:
        columns = {
            name: np.concatenate([shard.columns[name] for shard in shards])
            if shards
            else np.zeros(0, np.int32)
            for name in COLUMNS
        }
        sizes = [shard.commit.rows for shard in shards]
        places = [sources.index(shard.source) for shard in shards]
        columns["source"] = np.repeat(np.asarray(places, np.int16), sizes)
        columns["rank"] = np.full(sum(sizes), NOT_CHOSEN_FROM, np.int32)
        for trained in self._trained.values():
            place = sources.index(trained.source)
            first, last = np.searchsorted(columns["source"], [place, place + 1])
            columns["rank"][first:last] = _ranks(columns, slice(first, last), trained)
        number = self._table.number + 1 if self._table else 0
        return Table(
            number,
            sources,
            shards,
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            columns,
            list(self._trained.values()),
            self._dictionary,
            faults,
        )


def _ranks(columns: dict[str, Array], rows: slice, trained: Trained) -> Array:
    """Of the samples of a cycle the rank in its own training set, or NOT_KEPT."""
    own = trained.columns["cycle"] == trained.source.cycle
    kept = _keys(trained.columns["problem_id"][own], trained.columns["index"][own])
    order = np.argsort(kept)
    wanted = _keys(columns["problem_id"][rows], columns["index"][rows])
    if not len(kept):
        return np.full(len(wanted), NOT_KEPT, np.int32)
    places = np.minimum(np.searchsorted(kept[order], wanted), len(kept) - 1)
    ranks = trained.columns["rank"][own][order][places]
    return np.where(kept[order][places] == wanted, ranks, NOT_KEPT).astype(np.int32)


def _keys(problem: Array, index: Array) -> Array:
    return (problem.astype(np.int64) << 32) | index.astype(np.int64)


def _each(read: Callable[[_T], Any], wanted: Iterable[_T]) -> Iterable[tuple[_T, Any]]:
    """Each with what `read` gives of it, or with what was wrong. In threads: on a shared file
    system it is the waiting that takes the time."""

    def tried(what: _T) -> Any:
        try:
            return read(what)
        except _UNREADABLE as error:
            return error

    wanted = list(wanted)
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from zip(wanted, pool.map(tried, wanted), strict=True)
