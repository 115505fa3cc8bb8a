"""Where in a run folder judged samples are: of cycles, of evaluations, of benchmarks."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from haloforge.errors import InputError
from haloforge.store.run import TORN

SAMPLES, EVALUATION, BENCHMARK = "samples", "evaluation", "benchmark"
_CYCLE = re.compile(r"cycle_(\d+)")
_START, _EVAL = "start_eval", "eval"  # raft/held_out.py, which imports Ray
_INSIDE = {"samples", "verdicts", "commits"}
_NEVER = re.compile(r"^\.|\.old-\d+$|\.tmp$|\.work$")
_SELDOM = re.compile(r"_final$|^(?:tensorboard|logs|checkpoints)$")
"""A benchmark may be called so, after the adapter that it measured."""
_DEEPEST = 6
_MADE = ("run.json", "config.yaml")


@dataclass(frozen=True)
class Source:
    """A folder with committed samples. `key` is its path from the run's folder; `kind` is what it
    has in common with those of other cycles: `samples`, `evaluation`, or a benchmark's name.
    `cycle` is 0 for the evaluation before the first, None for a benchmark."""

    key: str
    folder: Path
    kind: str
    cycle: int | None

    @property
    def title(self) -> str:
        """What a reader calls it."""
        if self.cycle is None:
            return self.kind
        told = f"cycle {self.cycle}" if self.cycle else "start"
        name, _, what = self.kind.rpartition("/")
        told = told if what == SAMPLES else f"{told}, {what}"
        return f"{name}: {told}" if name else told


class Commit(NamedTuple):
    """What a manifest makes count: its shards' name and their rows."""

    manifest: Path
    shard: str
    rows: int


class Manifest(NamedTuple):
    """What a file of `commits` holds, and which state of the file that is from."""

    stamp: tuple[int, ...]
    shard: str
    rows: int
    replaces: list[str]


class Listing(NamedTuple):
    """The commits of a folder that count, in their order."""

    commits: list[Commit]
    faults: list[str]
    """What is wrong with those that cannot be read."""
    gone: bool
    """Whether a manifest went while it was read, as compacting has it: list again."""


def find_sources(run: Path, faults: list[str] | None = None) -> list[Source]:
    """Those in `run` and below, in a reader's order; folders that cannot be read are named in
    `faults`. Raises InputError where `run` is no folder of a run, or cannot be read; one of a run
    that has just begun may have none yet."""
    try:
        if not run.is_dir():
            raise InputError(f"{run}: no run folder is here")
        os.scandir(run).close()
        folders = list(_folders(run, 0, [] if faults is None else faults))
        if not folders and not any((run / name).exists() for name in _MADE):
            below = (folder / name for folder in run.glob("*") for name in _MADE)
            if not any(path.exists() for path in below):
                raise InputError(
                    f"{run}: holds no samples: expected the folder of a RAFT run, a pipeline or a "
                    "benchmark"
                )
    except OSError as error:
        raise InputError(f"{run}: cannot be read ({error.strerror or error})") from error
    return sorted((_source(run, folder) for folder in folders), key=_order)


def commits(source: Source, known: dict[str, Manifest]) -> Listing:
    """The commits of `source`. `known` keeps what manifests hold, which changes only where a run is
    begun anew."""
    folder = source.folder / "commits"
    told: dict[str, Manifest] = {}
    faults = []
    gone = False
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
    except FileNotFoundError:
        return Listing([], [], True)
    except OSError as error:
        return Listing([], [f"{folder}: cannot be read ({error}); left out"], False)
    for name in names:
        path = folder / name
        try:
            stamp = stamp_of(path)
            if name not in known or known[name].stamp != stamp:
                known[name] = _manifest(path, stamp)
        except FileNotFoundError:  # another took its place since
            gone = True
            continue
        except (OSError, ValueError, TypeError, KeyError) as error:
            faults.append(f"{path}: a manifest cannot be read ({error}); left out")
            continue
        told[name.removesuffix(".json")] = known[name]
    replaced = {each for manifest in told.values() for each in manifest.replaces}
    found = [
        Commit(folder / f"{name}.json", each.shard, each.rows)
        for name, each in told.items()
        if name not in replaced
    ]
    return Listing(found, faults, gone)


def stamp_of(*paths: Path) -> tuple[int, ...]:
    """What changes when one of these files is replaced. Raises OSError where one is gone."""
    files = [path.stat() for path in paths]
    return tuple(each for told in files for each in (told.st_mtime_ns, told.st_size, told.st_ino))


def natural(text: str) -> list[tuple[int, str]]:
    """A key to sort by in which 10 comes after 9."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _manifest(path: Path, stamp: tuple[int, ...]) -> Manifest:
    told = json.loads(path.read_text("utf-8"))
    shard = str(told["shard"])
    if "/" in shard or os.sep in shard:
        raise ValueError(f"its shard '{shard}' is no file's name")
    return Manifest(stamp, shard, int(told["rows"]), list(map(str, told.get("replaces") or [])))


def _folders(folder: Path, depth: int, faults: list[str]) -> Iterator[Path]:
    """Those at and below `folder` in which samples were committed."""
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    except FileNotFoundError:  # it went since it was listed
        return
    except OSError as error:
        faults.append(f"{folder}: cannot be read ({error.strerror or error}); left out")
        return
    if "commits" in names:
        yield folder
    elif depth and _SELDOM.search(folder.name):
        return
    if depth == _DEEPEST:
        return
    for name in sorted(names - _INSIDE):
        if not _NEVER.search(name) and TORN not in name:
            yield from _folders(folder / name, depth + 1, faults)


def _source(run: Path, folder: Path) -> Source:
    key = folder.relative_to(run).as_posix()
    parts = list(folder.relative_to(run).parts)
    kind, cycle = BENCHMARK if key == "." else key, None
    if parts and parts[-1] == _START:
        kind, cycle = _kind(parts[:-1], EVALUATION), 0
    elif parts and (found := _CYCLE.fullmatch(parts[-1])):
        kind, cycle = _kind(parts[:-1], SAMPLES), int(found[1])
    elif len(parts) > 1 and parts[-1] == _EVAL and (found := _CYCLE.fullmatch(parts[-2])):
        kind, cycle = _kind(parts[:-2], EVALUATION), int(found[1])
    return Source(key, folder, kind, cycle)


def _kind(run: list[str], what: str) -> str:
    """With the name of the RAFT run, where that is not the only one."""
    return what if run in ([], ["raft"]) else "/".join([*run, what])


def _order(source: Source) -> tuple[Any, ...]:
    """By cycles, each with its evaluation after it; benchmarks come last."""
    run, _, what = source.kind.rpartition("/")
    if source.cycle is None:
        return (1, natural(source.kind), 0, False)
    return (0, natural(run), source.cycle, what != SAMPLES)
