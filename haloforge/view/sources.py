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
_NOT = re.compile(r"^\.|_final$|\.old-\d+$|\.tmp$|\.work$|^(?:tensorboard|logs|checkpoints)$")
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


def find_sources(run: Path) -> list[Source]:
    """Those in `run` and below, in a reader's order. Raises InputError where `run` is no folder of
    a run; one of a run that has just begun may have none yet."""
    if not run.is_dir():
        raise InputError(f"{run}: no run folder is here")
    folders = list(_folders(run, 0))
    if not folders and not any((run / name).exists() for name in _MADE):
        below = (folder / name for folder in run.glob("*") for name in _MADE)
        if not any(path.exists() for path in below):
            raise InputError(
                f"{run}: holds no samples: expected the folder of a RAFT run, a pipeline or a "
                "benchmark"
            )
    return sorted((_source(run, folder) for folder in folders), key=_order)


def commits(source: Source, known: dict[str, dict[str, Any]]) -> tuple[list[Commit], list[str]]:
    """The commits that count, in their order, and what is wrong with those that cannot be read.
    `known` keeps what manifests hold, which never change."""
    told: dict[str, dict[str, Any]] = {}
    faults = []
    with os.scandir(source.folder / "commits") as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
    for name in names:
        path = source.folder / "commits" / name
        if name not in known:
            try:
                manifest = json.loads(path.read_text())
                known[name] = {"shard": str(manifest["shard"]), "rows": int(manifest["rows"])}
                known[name]["replaces"] = [*manifest.get("replaces", [])]
            except FileNotFoundError:  # another took its place since
                continue
            except (OSError, ValueError, TypeError, KeyError) as error:
                faults.append(f"{path}: a manifest cannot be read ({error}); left out")
                continue
        told[name.removesuffix(".json")] = known[name]
    replaced = {each for manifest in told.values() for each in manifest["replaces"]}
    folder = source.folder / "commits"
    standing = {name: manifest for name, manifest in told.items() if name not in replaced}
    found = [
        Commit(folder / f"{name}.json", each["shard"], each["rows"])
        for name, each in standing.items()
    ]
    return found, faults


def natural(text: str) -> list[tuple[int, str]]:
    """A key to sort by in which 10 comes after 9."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Those at and below `folder` in which samples were committed."""
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    if "commits" in names:
        yield folder
    if depth == _DEEPEST:
        return
    for name in sorted(names - _INSIDE):
        if not _NOT.search(name) and TORN not in name:
            yield from _folders(folder / name, depth + 1)


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
