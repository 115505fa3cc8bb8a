"""Writing a stream of rows to files as the lines that they are, whole or not at all."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from haloforge.data.jsonl import whole
from haloforge.errors import InputError

LEFT_OUT = -1


def gather(blocks: Iterable[pa.Table], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The columns `names` of a stream of numbers, as arrays with one entry a row."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for block in blocks:
        for name, found in parts.items():
            found.append(block[name].to_numpy())
    return {name: np.concatenate(found) for name, found in parts.items()}


def write_rows(
    blocks: Iterable[pa.Table], target: NDArray[np.int8], outputs: Sequence[Path], source: str
) -> None:
    """Writes the column `row` of each block: row i of the stream to `outputs[target[i]]`, as a line
    of its own, or nowhere where that is LEFT_OUT. The files appear when all are whole.

    Raises InputError where the stream has not as many rows as `target`.
    """
    place = 0
    with whole(*outputs) as handles:
        for block in blocks:
            of_rows = target[place : place + block.num_rows]
            place += block.num_rows
            if len(of_rows) < block.num_rows:
                break
            for number, handle in enumerate(handles):
                lines = block["row"].filter(pa.array(of_rows == number)).to_pylist()
                handle.write("".join(map(ended, lines)))
        if place != len(target):
            raise InputError(f"{source}: has changed while it was read")


def ended(line: str) -> str:
    """`line` with its end: the last of a file may have none."""
    return line if line.endswith("\n") else f"{line}\n"
