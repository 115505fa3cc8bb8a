"""Which samples are asked for, in which order, and how many there are of each outcome."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from haloforge.errors import InputError
from haloforge.schema import Outcome
from haloforge.view.columns import NOT_KEPT, Array
from haloforge.view.index import Table

_SORTS: dict[str, tuple[str, bool]] = {
    "reward": ("reward", False),
    "-reward": ("reward", True),
    "tokens": ("num_tokens", False),
    "-tokens": ("num_tokens", True),
}
SORTS = ("commits", *_SORTS)
"""`commits` is the order in which samples came; of the others a minus is: the highest first."""


@dataclass(frozen=True)
class Filter:
    """What is asked for; None, or nothing, does not choose. `problem` is an id, or a part of ids
    where none is called so, in any case of letters."""

    source: str | None = None
    cycle: int | None = None
    outcomes: tuple[str, ...] = ()
    problem: str = ""
    min_reward: float | None = None
    max_reward: float | None = None
    kept: bool | None = None
    sort: str = "commits"

    def check(self, table: Table) -> None:
        """Raises InputError for what nothing is called, naming what is known."""
        known = [*Outcome]
        for outcome in self.outcomes:
            if outcome not in known:
                raise InputError(f"unknown outcome '{outcome}'; known: {', '.join(known)}")
        if self.sort not in SORTS:
            raise InputError(f"unknown sort '{self.sort}'; known: {', '.join(SORTS)}")
        for bound in (self.min_reward, self.max_reward):
            if bound is not None and not math.isfinite(bound):
                raise InputError(f"a reward is a finite number, not {bound}")
        kinds = kinds_of(table)
        if self.source is not None and self.source not in kinds:
            there = ", ".join(kinds) or "none yet"
            raise InputError(f"no source '{self.source}' in this run; there: {there}")
        cycles = cycles_of(table)
        if self.cycle is not None and self.cycle not in cycles:
            there = ", ".join(map(str, cycles)) or "none"
            raise InputError(f"no cycle {self.cycle} in this run; there: {there}")


class Found(NamedTuple):
    """The rows that a filter takes, in its order, and of each outcome how many there would be."""

    rows: Array
    outcomes: dict[str, int]
    """Whatever outcomes the filter itself takes."""


def kinds_of(table: Table) -> list[str]:
    """The kinds of its sources."""
    return list(dict.fromkeys(source.kind for source in table.sources))


def cycles_of(table: Table) -> list[int]:
    """The cycles of its sources."""
    return sorted({source.cycle for source in table.sources if source.cycle is not None})


class Finder:
    """Applies filters, and keeps what the last ones found: pages of it are asked for in turn."""

    def __init__(self, keep: int = 4) -> None:
        self._keep = keep
        self._found: dict[tuple[int, Filter], Found] = {}

    def find(self, table: Table, wanted: Filter) -> Found:
        """The rows of `table` that are `wanted`."""
        key = (table.number, wanted)
        found = self._found.pop(key, None) or find(table, wanted)
        self._found[key] = found  # now the newest
        while len(self._found) > self._keep:
            self._found.pop(next(iter(self._found)), None)
        return found


def find(table: Table, wanted: Filter) -> Found:
    """The rows of `table` that are `wanted`. Raises InputError for what nothing is called."""
    wanted.check(table)
    columns = table.columns
    mask = np.ones(len(table), bool)
    if wanted.source is not None or wanted.cycle is not None:
        mask &= _sources(table, wanted)[columns["source"]]
    if wanted.problem:
        mask &= _problems(table, wanted.problem)[columns["problem_id"]]
    if wanted.min_reward is not None:
        mask &= columns["reward"].astype(np.float64) >= _stored(wanted.min_reward)
    if wanted.max_reward is not None:
        mask &= columns["reward"].astype(np.float64) <= _stored(wanted.max_reward)
    if wanted.kept is not None:
        mask &= columns["rank"] > NOT_KEPT if wanted.kept else columns["rank"] == NOT_KEPT
    names = table.dictionary["outcome"]
    known = list(names.all)  # which may grow meanwhile, as the run goes on
    counts = np.bincount(columns["outcome"][mask], minlength=len(known))
    if wanted.outcomes:
        mask &= np.isin(columns["outcome"], [names.known(outcome) for outcome in wanted.outcomes])
    rows = np.flatnonzero(mask)
    if wanted.sort in _SORTS:
        column, falling = _SORTS[wanted.sort]
        values = columns[column][rows]
        rows = rows[np.argsort(-values if falling else values, kind="stable")]
    told = zip(known, counts.tolist(), strict=True)
    return Found(rows.astype(np.int32), {name: count for name, count in told if count})


def _stored(reward: float) -> float:
    """As a reward of this size is stored: 0.7 is no binary fraction, and is meant all the same."""
    fits = abs(reward) <= float(np.finfo(np.float32).max)
    return float(np.float32(reward)) if fits else reward


def _sources(table: Table, wanted: Filter) -> Array:
    """Of each source whether it is wanted."""
    return np.array(
        [
            wanted.source in (None, source.kind) and wanted.cycle in (None, source.cycle)
            for source in table.sources
        ],
        bool,
    )


def _problems(table: Table, text: str) -> Array:
    """Of each problem whether it is wanted."""
    names = table.dictionary["problem_id"]
    known = list(names.all)
    if (code := names.known(text)) >= 0:
        return np.arange(len(known)) == code
    part = text.casefold()
    return np.fromiter((part in name.casefold() for name in known), bool)
