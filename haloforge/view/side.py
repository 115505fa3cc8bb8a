"""The same problem in each cycle: what its samples came to, and the one that stands for them."""

from typing import NamedTuple

import numpy as np

from haloforge.view.columns import NOT_KEPT
from haloforge.view.index import Table
from haloforge.view.sources import Source

MOST = 12


class Column(NamedTuple):
    """One folder's samples of a problem."""

    source: Source
    outcomes: dict[str, int]
    best: int
    """The row of its sample that was trained on first, or else has the highest reward."""
    kept: bool


def columns_of(table: Table, problem: str, source: Source) -> tuple[list[Column], int]:
    """A column for each folder that has samples of `problem`, MOST of them, those nearest to
    `source`; and how many are left out."""
    columns = table.columns
    rows = np.flatnonzero(columns["problem_id"] == table.dictionary["problem_id"].known(problem))
    there = np.unique(columns["source"][rows]).tolist()
    here = table.sources.index(source)
    nearest = sorted(sorted(there, key=lambda place: abs(place - here))[:MOST])
    found = []
    for place in nearest:
        own = rows[columns["source"][rows] == place]
        codes, counts = np.unique(columns["outcome"][own], return_counts=True)
        names = [table.dictionary["outcome"].all[code] for code in codes.tolist()]
        ranks = columns["rank"][own].astype(np.int64)
        kept = ranks > NOT_KEPT
        unkept = np.where(kept, ranks, np.iinfo(np.int64).max)
        best = own[np.lexsort((columns["index"][own], -columns["reward"][own], unkept))[0]]
        outcomes = dict(zip(names, counts.tolist(), strict=True))
        found.append(Column(table.sources[place], outcomes, int(best), bool(kept.any())))
    return found, len(there) - len(nearest)
