"""What was trained on in earlier cycles, where `raft.train_on` is `all`."""

from collections.abc import Iterator
from dataclasses import dataclass
from errno import EIO, ENOENT
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.errors import InfraError
from haloforge.raft.training_set import TRAINED, TRAINED_SCHEMA

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Earlier:
    """How the samples that earlier cycles had chosen fared: of answers that are the same but for
    comments and white space the newest is trained on. The rows of `unreadable` cycles are lost."""

    kept: int = 0
    duplicate_of_earlier: int = 0
    over_max_train_samples: int = 0
    unreadable: tuple[int, ...] = ()


class EarlierRows:
    """The rows that follow those of `cycle`, whose answers have the forms `newer`: the newest
    cycle's first, each cycle's best first, `room` in all (None: no end).

    A cycle whose `trained.parquet` is gone or spoilt is left out. Raises InfraError where one
    cannot be read just now.
    """

    def __init__(self, run: Path, cycle: int, newer: Array, room: int | None) -> None:
        self._first = len(newer)
        self._ranks: dict[Path, Array] = {}  # of each row of a file, -1 of those left out
        kept = duplicates = over = 0
        unreadable: list[int] = []
        for number in range(cycle - 1, 0, -1):
            path = run / f"cycle_{number}" / TRAINED
            stored = _read(path)
            if stored is None:
                unreadable.append(number)
                continue
            own = stored["cycle"].to_numpy() == number
            forms = stored["form"].to_numpy()
            new = own & ~np.isin(forms, newer)
            duplicates += int(own.sum() - new.sum())
            place = kept + np.cumsum(new) - 1
            taken = new & (place < room) if room is not None else new
            self._ranks[path] = np.where(taken, self._first + place, -1)
            newer = np.concatenate([newer, forms[new]])
            kept += int(taken.sum())
            over += int(new.sum() - taken.sum())
        self.counts = Earlier(kept, duplicates, over, tuple(unreadable))

    def parts(self) -> Iterator[pa.Table]:
        """The rows, with their ranks behind those of the cycle's own."""
        for path, ranks in self._ranks.items():
            with pq.ParquetFile(path) as file:
                begin = 0
                for batch in file.iter_batches(1024):
                    part = ranks[begin : begin + batch.num_rows]
                    begin += batch.num_rows
                    rows = batch.set_column(0, TRAINED_SCHEMA.field("rank"), pa.array(part))
                    yield pa.Table.from_batches([rows.filter(pa.array(part >= 0))])


def _read(path: Path) -> pa.Table | None:
    """Cycle and form of each row; None where any part of the file is gone or spoilt."""
    columns = ["cycle", "form"]
    schema = pa.schema([TRAINED_SCHEMA.field(name) for name in columns])
    try:
        with pq.ParquetFile(path) as file:  # all of it, as all is read once the rows are counted
            return pa.Table.from_batches(
                (b.select(columns) for b in file.iter_batches(1024)), schema
            )
    except (OSError, pa.ArrowException) as error:
        if _is_spoilt(error):
            return None
        raise InfraError(f"{path}: an earlier cycle's rows cannot be read ({error})") from error


def _is_spoilt(error: Exception) -> bool:
    """Whether a file cannot be read at a later moment either."""
    if isinstance(error, OSError):
        return error.errno in (None, ENOENT, EIO)
    return not isinstance(error, MemoryError)
