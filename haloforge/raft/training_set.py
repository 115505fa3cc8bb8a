"""What a cycle trains on, as one Parquet file: `cycle_N/trained.parquet`, a row a sample, in order.

Each row says where it comes from, so that any answer that was trained on can be followed back to
its problem, its policy and its shard. `form` is that of its answer (see answers.py).
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from haloforge.schema import Message, Problem

TRAINED = "trained.parquet"
TRAINED_SCHEMA = pa.schema(
    [
        ("rank", pa.int64()),
        ("sample_id", pa.string()),
        ("problem_id", pa.string()),
        ("cycle", pa.int32()),
        ("index", pa.int32()),
        ("reward", pa.float32()),
        ("outcome", pa.string()),
        ("policy", pa.string()),
        ("completion", pa.string()),
        ("shard", pa.string()),
        ("problem_source", pa.string()),
        ("form", pa.uint64()),
    ]
)
_GROUP_ROWS = 1024
_HELD_GROUPS = 8
_MOST_BUCKETS = 128


class TrainingSet(Sequence[list[Message]]):
    """The rows of a `trained.parquet` as conversations that end with the policy's own answer.

    One row group is held at a time, so read it in order.
    """

    def __init__(self, path: Path, problems: Sequence[Problem], system: str | None) -> None:
        self._file = pq.ParquetFile(path)
        self._problems = {problem.problem_id: problem for problem in problems}
        self._system = system
        self._held: int | None = None
        self._rows: list[dict[str, str]] = []

    def __len__(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    @overload
    def __getitem__(self, index: int) -> list[Message]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Message]]: ...
    def __getitem__(self, index: int | slice) -> list[Message] | list[list[Message]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        # All groups but the last are as large as the first.
        group, place = divmod(range(len(self))[index], self._file.metadata.row_group(0).num_rows)
        if group != self._held:
            columns = ["problem_id", "completion"]
            self._rows = self._file.read_row_group(group, columns).to_pylist()
            self._held = group
        row = self._rows[place]
        return [
            *self._problems[row["problem_id"]].turns(self._system),
            {"role": "assistant", "content": row["completion"].strip()},
        ]


def write_training_set(path: Path, parts: Iterable[pa.Table], rows: int) -> None:
    """Writes `parts`, tables of TRAINED_SCHEMA whose ranks are 0 to `rows` - 1 in any order, to
    `path` by rank. The file appears when it is whole.

    A bucket sort on disk: 8,192 rows are held at a time, or a 128th of all where that is more.
    """
    for left in path.parent.glob(f".{path.name}-*"):  # by a process that was killed
        shutil.rmtree(left)
    groups = max(_HELD_GROUPS, -(-rows // (_MOST_BUCKETS * _GROUP_ROWS)))
    size = groups * _GROUP_ROWS  # in whole row groups, so that all but the last are full
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as work:
        buckets = [Path(work) / f"{number}.arrow" for number in range(-(-rows // size))]
        with ExitStack() as files:
            writers = [files.enter_context(pa.ipc.new_stream(b, TRAINED_SCHEMA)) for b in buckets]
            for table in _joined(parts):
                number = pc.divide(table["rank"], size)
                for value in pc.unique(number).to_pylist():
                    writers[value].write_table(table.filter(pc.equal(number, value)))
        whole = Path(work) / path.name
        with pq.ParquetWriter(whole, TRAINED_SCHEMA, compression="zstd") as file:
            for bucket in buckets:
                with pa.ipc.open_stream(bucket.open("rb")) as stream:
                    file.write_table(stream.read_all().sort_by("rank"), row_group_size=_GROUP_ROWS)
        with whole.open("rb") as handle:
            os.fsync(handle.fileno())
        whole.replace(path)


def _joined(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of 8,192 or a few more."""
    held, rows = [], 0
    for part in parts:
        held.append(part)
        rows += part.num_rows
        if rows >= _HELD_GROUPS * _GROUP_ROWS:
            yield pa.concat_tables(held)
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held)
