"""Words of many texts at once, and n-grams of them, as numbers of 64 bits.

All of a batch's bytes are hashed in a few passes of numpy, with no loop over texts or words. A hash
depends on nothing but the word, so that workers and runs agree.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from haloforge.data.keys import mixed

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = np.uint64(pow(_BASE, -1, 2**64))
_STEP = np.uint64(0xBF58476D1CE4E5B9)
_NO_WORD = re.compile(r"[\W_]+")

# What each byte counts as: a capital as its small letter, and 0 for what is part of no word. Bytes
# beyond ASCII are letters, for `_plain` leaves only those.
_LETTER = np.array(
    [ord(chr(byte).lower()) if byte < 128 and chr(byte).isalnum() else 0 for byte in range(128)]
    + [*range(128, 256)],
    np.uint64,
)


class Hashed(NamedTuple):
    """`values` are hashes, and `owners` the place of the text that each is from, rising."""

    values: U64
    owners: I64


def words(texts: Sequence[str]) -> Hashed:
    """The words of each text in order: runs of letters and digits, whatever their case."""
    encoded = [_plain(text).encode(errors="replace") for text in texts]
    joined = np.frombuffer(b" ".join([b"", *encoded, b""]), np.uint8)
    letters = _LETTER[joined]
    edges = np.diff((letters != 0).astype(np.int8))
    begins, ends = np.flatnonzero(edges == 1) + 1, np.flatnonzero(edges == -1) + 1
    # A word's hash is the sum of its letters times powers of a base that begin with the word: a
    # difference of two sums over all the bytes, brought down to the first power (modulo 2**64).
    sums = np.cumsum(letters * _powers(np.uint64(_BASE), len(letters)), dtype=np.uint64)
    hashes = (sums[ends - 1] - sums[begins - 1]) * _powers(_INVERSE, len(letters))[begins]
    bounds = np.cumsum([1, *(len(text) + 1 for text in encoded)])
    return Hashed(mixed(hashes), np.searchsorted(bounds, begins, side="right") - 1)


def grams(found: Hashed, size: int) -> Hashed:
    """Each run of `size` words of one text; a text of fewer has none."""
    count = max(0, len(found.values) - size + 1)
    hashes = np.zeros(count, np.uint64)
    for place in range(size):
        hashes = hashes * _STEP + found.values[place : place + count]
    within = found.owners[:count] == found.owners[size - 1 : size - 1 + count]
    return Hashed(mixed(hashes[within]), found.owners[:count][within])


def _powers(base: np.uint64, count: int) -> U64:
    return np.cumprod(np.full(count, base, np.uint64), dtype=np.uint64)


def _plain(text: str) -> str:
    """`text` for which bytes tell letters from others."""
    return text if text.isascii() else _NO_WORD.sub(" ", text.lower())
