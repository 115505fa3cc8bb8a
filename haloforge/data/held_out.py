"""Which rows are held out: by digests of prompt and group, a few bytes a row."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
Mask = NDArray[np.bool_]


def joined(prompts: Digests, groups: Digests) -> Digests:
    """A label for each row, the same for rows that a prompt or a group joins, however indirectly.

    Connected components, by handing on the least label until none changes.
    """
    parts = [np.unique(column, return_inverse=True)[1] for column in (prompts, groups)]
    labels = prompts.copy()
    while True:
        before = labels
        for part in parts:
            least = np.full(int(part.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
            np.minimum.at(least, part, labels)
            labels = least[part]
        if np.array_equal(before, labels):
            return labels


def held_out(prompts: Digests, groups: Digests, fraction: float, seed: int) -> Mask:
    """`fraction` of the problems, drawn by `seed` with all their variants and all their rows.

    Which are drawn depends on them and the seed alone, not on the order of rows.
    """
    labels = joined(prompts, groups)
    distinct = np.unique(labels)
    order = distinct[np.argsort(_mixed(distinct, seed), kind="stable")]
    return np.isin(labels, order[: round(fraction * len(order))])


def firsts(digests: Digests) -> Mask:
    """Of each digest the first row that has it."""
    mask = np.zeros(len(digests), np.bool_)
    mask[np.unique(digests, return_index=True)[1]] = True
    return mask


def _mixed(values: Digests, seed: int) -> Digests:
    """Another order for each seed: the output function of SplitMix64 (Steele et al. 2014)."""
    start = hashlib.sha256(str(seed).encode()).digest()[:8]
    mixed = values ^ np.uint64(int.from_bytes(start, "little"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
