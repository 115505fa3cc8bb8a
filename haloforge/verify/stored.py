"""Stored samples as what the verifier stage takes, read as it takes them."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data

from haloforge.groups import group

STORED_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("problem_id", pa.string()),
        ("index", pa.int32()),
        ("completion", pa.string()),
        ("code", pa.string()),
        ("problem", pa.string()),
    ]
)
"""A stored sample: of `completion` and `code` one is null, `index` is its place among the others,
`problem` its problem as JSON, null where that is known by its id."""

AHEAD = 1000  # rows a reader may be ahead of the verdicts, at least
AHEAD_PER_ACTOR = 8
WAIT_S = 0.05
_BUFFER = 64  # rows that wait to be fetched, which is done ten times a second at most


def session_folder() -> Path:
    """A folder of ours on this node, among the temporary files of this session of Ray."""
    context = ray.get_runtime_context()
    folder = Path(context.get_temp_dir(), context.get_session_name(), "haloforge")
    folder.mkdir(exist_ok=True)
    return folder


class StoredSamples:
    """Rows of STORED_SCHEMA for `verify_stage`, in groups of one, made by one task on this machine.

    Ray Data bounds in bytes what waits between two stages, but small rows cost its driver many
    times their size. So the task waits for verdicts, which `judged` counts in a file.
    """

    def __init__(self, rows: Callable[[], Iterable[dict[str, Any]]], actors: int) -> None:
        self._rows = rows
        self._ahead = max(AHEAD, AHEAD_PER_ACTOR * actors)
        self._count = 0
        self._path = session_folder() / f"judged-{uuid.uuid4().hex}"
        self._path.write_bytes(b"")

    def judged(self) -> None:
        """One more row has its verdict."""
        self._count += 1
        self._path.write_bytes(self._count.to_bytes(8, "little"))

    def dataset(self) -> "ray.data.Dataset":
        """The rows as a data set, to be consumed once."""
        rows, path, ahead = self._rows, self._path, self._ahead

        def read(_: pa.Table) -> Iterator[pa.Table]:
            for number, row in enumerate(rows()):
                while number - int.from_bytes(path.read_bytes(), "little") > ahead:
                    time.sleep(WAIT_S)
                yield group([row], STORED_SCHEMA)

        one = ray.data.from_items([0])
        # Of this stream alone, as in `read_rows`.
        one.context.target_max_block_size = 1  # bytes: a block ends after each row
        one.context._max_num_blocks_in_streaming_gen_buffer = _BUFFER
        return one.map_batches(
            read,
            compute=ray.data.TaskPoolStrategy(size=1),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
        )
