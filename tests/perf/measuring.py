"""What the measures share: real data, one core, two sides in turn, an entry."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from haloforge.model.precision import cpu_has_bf16

BESIDE = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(os.environ.get("HALOFORGE_TEST_DATA", BESIDE))
_T = TypeVar("_T")


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a real data set, none where it is not here."""
    path = DATA / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def spread(items: Sequence[_T], count: int | None) -> list[_T]:
    """`count` of the items, from all over them; None is all."""
    count = min(count or len(items), len(items))
    return [items[number * len(items) // count] for number in range(count)]


def number_format() -> str:
    """What both sides compute in: bfloat16, or float32 where the CPU has no instructions for it."""
    return "bfloat16" if cpu_has_bf16() else "float32"


def use_one_core() -> None:
    """Bind this process, and all that it starts from now on, to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


class Pace(NamedTuple):
    """Items a second of each side, and how both were compared."""

    ours: float
    reference: float
    note: str


def in_turn(
    items: Sequence[_T],
    block: int,
    ours: Callable[[_T], None],
    reference: Callable[[_T], None],
) -> Pace:
    """Both sides do all items, a block of them in turn, so that neither has the machine's better
    times. Each block takes from all over the items; which side begins it alternates."""
    sides = {"ours": ours, "reference": reference}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    blocks = -(-len(items) // block)
    for first in range(blocks):
        for name in list(sides)[:: -1 if first % 2 else 1]:
            began = time.monotonic()
            for item in items[first::blocks]:
                sides[name](item)
            seconds[name].append(time.monotonic() - began)
        mine, theirs = sum(seconds["ours"]), sum(seconds["reference"])
        done = f"block {first + 1} of {blocks}: ratio {theirs / mine:.2f}, {mine + theirs:.0f} s"
        print(f"  {done}", file=sys.stderr, flush=True)
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["reference"], strict=True)]
    note = (
        f"sums of {blocks} interleaved blocks, whose own ratios are {min(ratios):.2f} to "
        f"{max(ratios):.2f}, median {statistics.median(ratios):.2f}"
    )
    return Pace(len(items) / mine, len(items) / theirs, note)


def tell(pace: Pace, unit: str, note: str, per_item: float = 1) -> None:
    """Print a measure's entry. An item is `per_item` of what the unit counts."""
    entry = {"ours": pace.ours * per_item, "reference": pace.reference * per_item}
    ratio = pace.ours / pace.reference
    print(json.dumps({**entry, "ratio": ratio, "unit": unit, "note": f"{note}; {pace.note}"}))


def alternately(module: str, unit: str, *arguments: str) -> dict[str, list[float]]:
    """What the sides `ours` and `reference` of a module print last, twice each, in turn. Each runs
    in a process of its own, so that neither inherits threads or caches."""
    sides: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(2):
        for side, values in sides.items():
            values.append(float(apart(module, side, *arguments)))
            print(f"  {side}: {values[-1]:.3g} {unit}", file=sys.stderr, flush=True)
    return sides


def apart(module: str, *arguments: str) -> str:
    """The last line that a module prints in a process of its own."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]
