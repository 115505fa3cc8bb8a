"""Digests by which rows are told apart, and what can be said of rows by those alone.

Eight bytes a row are kept where a text would take a thousand: of n different texts two have the
same digest with a chance of n^2 / 2^65, which for a million rows is one in thirty million.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haloforge.schema import Message, Problem, digest

Digests = NDArray[np.uint64]
Mask = NDArray[np.bool_]


def digest64(*parts: Any) -> int:
    """`digest` as a number of 64 bits, which sorts as that does."""
    # JSON can hold half a surrogate pair, UTF-8 cannot.
    return int(digest(*(str(part).encode(errors="replace").decode() for part in parts)), 16)


def prompt_digest(problem: Problem) -> int:
    """The digest of what a problem asks, as `data split` takes it: put by two system prompts, or
    with other white space around, it is one."""
    return digest64(problem.prefix.strip()) if problem.prefix else turns_digest(problem.turns())


def turns_digest(turns: Sequence[Message]) -> int:
    """The same of the turns that ask."""
    return digest64(*(turn["content"].strip() for turn in turns if turn["role"] != "system"))


def mixed(values: Digests) -> Digests:
    """Numbers whose every bit depends on every bit of the values': the output function of
    SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def ranks(values: Digests, seed: int) -> Digests:
    """Numbers that put `values` in a random order, another for each `seed`."""
    return mixed(values ^ np.uint64(digest64(seed)))


def components(*keys: Digests) -> NDArray[np.int64]:
    """The connected component of each row: the first row that it shares a value of a key with, in
    any number of steps.

    Rounds of hooking and pointer jumping (Shiloach and Vishkin 1982), with no Python object a row.
    """
    columns = [np.unique(key, return_inverse=True)[1] for key in keys]
    root = np.arange(len(keys[0]))
    while True:
        before = root
        for column in columns:
            least = np.full(column.max(initial=-1) + 1, len(root))
            np.minimum.at(least, column, root)
            hooked = root.copy()
            np.minimum.at(hooked, root, least[column])
            root = hooked
            while (jumped := root[root] != root).any():
                root = np.where(jumped, root[root], root)
        if (root == before).all():
            return root


def names_of(component: NDArray[np.int64], keys: Digests) -> Digests:
    """A name for the component of each row that does not depend on the order of rows: the least of
    its `keys`, of which no two components have one in common."""
    least = np.full(int(component.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, component, keys)
    return least[component]


def held_out(prompts: Digests, groups: Digests, fraction: float, seed: int) -> Mask:
    """About `fraction` of the problems, drawn by `seed` with all their variants and all their rows;
    of two and more one at least, and not all.

    Whether one is drawn depends on its group and the seed alone, not on the order of rows nor on
    what others there are: so what is held out of a part of a set is held out of all of it, but
    where a prompt joins groups, or all are so few that one must be added.
    """
    names = names_of(components(prompts, groups), groups)
    drawn = ranks(names, seed)
    mask = drawn < np.uint64(fraction * 2**64)
    if len(drawn) and mask.all():
        mask = drawn != drawn.max()
    elif fraction and len(np.unique(names)) > 1 and not mask.any():
        mask = drawn == drawn.min()
    return np.asarray(mask, np.bool_)


def firsts(digests: Digests) -> Mask:
    """Of each digest the first row that has it."""
    mask = np.zeros(len(digests), np.bool_)
    mask[np.unique(digests, return_index=True)[1]] = True
    return mask
