"""Rows that repeat: exactly, by a digest, and nearly, by MinHash with LSH (Broder 1997).

A row's signature is the least value of its shingles (runs of five words) under each of 128 hash
functions: two rows share a value with the probability of their Jaccard similarity. Rows that agree
in all of the eight values of one of sixteen bands are candidates (Leskovec et al., Mining of
Massive Datasets, section 3.4): 95% of the pairs of similarity 0.8 are, and 6% of those of 0.5. They
count where the similarity estimated from all values is at or above the threshold. Of each value a
byte is kept (b-bit minwise hashing, Li and Koenig 2010).

Workers make signatures; the driver sorts. In a band's group each row is compared with the first and
with the `NEIGHBOURS` before it, so that a group of a million rows costs no more than others: in a
larger one a pair may be missed.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from haloforge.data.keys import mixed
from haloforge.data.validate.words import I64, U64, Hashed

SHINGLE = 5  # words
BANDS, IN_BAND = 16, 8
VALUES = BANDS * IN_BAND
NEIGHBOURS = 8
NONE = -1
SIMILAR = 0.8
"""The similarity from which on rows are near duplicates, where nothing else is asked for."""
_AT_ONCE = 100_000  # pairs compared, of 2 * VALUES bytes each

_random = np.random.default_rng(1997)
_XOR = _random.integers(2**32, size=VALUES, dtype=np.uint32)
_ODD = _random.integers(2**31, size=VALUES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)


class Signatures(NamedTuple):
    """Of each row: `kept`, uint8[rows, VALUES]; `bands`, uint32[rows, BANDS]; and `any`,
    bool[rows], False for a row with fewer words than a shingle, which is like no other."""

    kept: npt.NDArray[np.uint8]
    bands: npt.NDArray[np.uint32]
    any: npt.NDArray[np.bool_]


def signatures(shingles: Hashed, rows: int) -> Signatures:
    """The signatures of `rows` texts, of which these are the shingles."""
    found = Signatures(
        np.zeros((rows, VALUES), np.uint8),
        np.zeros((rows, BANDS), np.uint32),
        np.zeros(rows, np.bool_),
    )
    if not len(shingles.values):
        return found
    present, begins = np.unique(shingles.owners, return_index=True)
    hashes = (shingles.values >> np.uint64(32)).astype(np.uint32)
    least = np.empty((VALUES, len(present)), np.uint32)
    for place in range(VALUES):
        least[place] = np.minimum.reduceat((hashes ^ _XOR[place]) * _ODD[place], begins)
    found.any[present] = True
    found.kept[present] = ((least * _ODD[0]) >> np.uint32(24)).astype(np.uint8).T
    for band in range(BANDS):
        joined = np.zeros(len(present), np.uint64)
        for values in least[band * IN_BAND : (band + 1) * IN_BAND]:
            joined = mixed(joined + values)
        found.bands[present, band] = (joined >> np.uint64(32)).astype(np.uint32)
    return found


def repeats(keys: U64, rows: I64) -> I64:
    """Of each key the first row, in the order of `rows`, that has the same one; NONE for the first
    itself and for rows that are not among `rows`, which rise."""
    first = np.full(len(keys), NONE, np.int64)
    order, begins = _groups(keys[rows])
    later = np.flatnonzero(begins != np.arange(len(begins)))
    first[rows[order[later]]] = rows[order[begins[later]]]
    return first


def near_repeats(
    bands: npt.NDArray[np.uint32], kept: npt.NDArray[np.uint8], rows: I64, threshold: float
) -> I64:
    """Of each of `rows`, which rise, the first one found before it that is as similar to it as
    `threshold` (Jaccard, 0 to 1) by estimate; NONE for others. Shapes are those of Signatures."""
    beyond = len(bands)
    first = np.full(beyond, beyond, np.int64)
    for band in range(BANDS):
        order, begins = _groups(bands[:, band][rows])
        for lag in range(NEIGHBOURS + 1):
            places = np.arange(len(order))
            before = places - lag if lag else begins
            near = np.flatnonzero((before >= begins) & (before < places))
            if not len(near):
                break
            earlier, later = rows[order[before[near]]], rows[order[near]]
            new = earlier < first[later]
            earlier, later = earlier[new], later[new]
            for begin in range(0, len(later), _AT_ONCE):
                one, two = earlier[begin : begin + _AT_ONCE], later[begin : begin + _AT_ONCE]
                similar = similarity(kept[one], kept[two]) >= threshold
                np.minimum.at(first, two[similar], one[similar])
    first[first == beyond] = NONE
    return first


def similarity(one: npt.NDArray[np.uint8], two: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The estimated Jaccard similarity of pairs of signatures, less what bytes share by chance."""
    by_chance = 1 / 256
    shared: npt.NDArray[np.float64] = (one == two).mean(axis=1)
    return (shared - by_chance) / (1 - by_chance)


def _groups(keys: npt.NDArray[np.unsignedinteger]) -> tuple[I64, I64]:
    """The order that sorts `keys`, equal ones as they stand, and of each place in that order the
    place where its group of equal keys begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(len(ordered), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    begins = np.maximum.accumulate(np.where(new, np.arange(len(ordered)), 0))
    return order, begins
