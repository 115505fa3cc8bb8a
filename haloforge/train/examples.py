"""The training examples: encoded by Ray Data, kept as its blocks, read by row where they train."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.exceptions import RayError

from haloforge.data.chat import encode_example
from haloforge.errors import InfraError, InputError
from haloforge.model.places import HERE, Places

_CHUNK_ROWS = 1000  # of text in one block, and so in one task
_ENCODED = pa.schema(
    [
        ("number", pa.int64()),
        ("tokens", pa.list_(pa.int32())),
        ("trained", pa.list_(pa.bool_())),
        ("digest", pa.int64()),
        ("fault", pa.string()),
    ]
)


@dataclass(frozen=True)
class Examples:
    """Rows in blocks of Ray's object store, which spills to disk what memory has no room for.

    Row i is row `offset[i]` of block `block[i]` and has `length[i]` tokens, `num_trained[i]` of
    which carry loss; the others are only read. Only these four numbers of a row are in every
    worker's memory. `digest` is that of all rows.
    """

    blocks: tuple[Any, ...]  # object refs
    block: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    num_trained: npt.NDArray[np.int32]
    digest: str

    def __len__(self) -> int:
        return len(self.length)

    def row(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Token ids of one row, and of each whether it is trained on."""
        table: pa.Table = ray.get(self.blocks[self.block[index]])
        ids, trained = (
            table[name][int(self.offset[index])].values.to_numpy(zero_copy_only=False)
            for name in ("tokens", "trained")
        )
        return ids, trained

    def lengths(self) -> Sequence[int]:
        """Tokens of each row."""
        return array("i", self.length.tobytes())

    def trained_tokens(self, rows: Sequence[int]) -> int:
        """Tokens of `rows` that carry loss."""
        return int(self.num_trained[np.asarray(rows, np.int64)].sum())


def encode_rows(
    rows: Iterable[dict[str, Any]],
    base_path: Path,
    max_length: int,
    cpus_per_task: float = 1,
    purpose: str = "train",
    places: Places = HERE,
) -> tuple[Examples, int]:
    """The rows' examples, and how many rows were dropped as no answer token fits `max_length`.

    `rows` may be a stream: it goes to Ray's object store in chunks, and tasks of Ray Data encode
    them. Raises InputError for a row that is not a conversation which ends with the assistant, and
    when no row is left; InfraError where Ray fails.
    """
    total, chunks = 0, []
    for chunk in _chunks(rows):
        total += chunk.num_rows
        chunks.append(ray.put(chunk))
    if not chunks:
        raise InputError(f"nothing to {purpose} on: there are no rows")
    encoded = ray.data.from_arrow_refs(chunks).map_batches(
        encode_chunk,
        fn_kwargs={"base_path": base_path, "max_length": max_length, "places": places},
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=cpus_per_task,
    )
    encoded.context.target_max_block_size = None  # a block holds what its task has encoded
    try:
        examples = _gather(encoded.materialize())
    except RayError as error:
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise InfraError(f"the rows to {purpose} on could not be encoded: {last[0]}") from error
    dropped = total - len(examples)
    if not len(examples):
        raise InputError(
            f"nothing to {purpose} on: {total} rows, {dropped} of them dropped, as no answer "
            f"token fits train.max_length={max_length}"
        )
    return examples, dropped


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[pa.Table]:
    """The rows as JSON, for their columns may differ, in tables of `number` and `row`."""
    numbered = enumerate(rows)
    while chunk := list(islice(numbered, _CHUNK_ROWS)):
        numbers, texts = zip(*((number, json.dumps(row)) for number, row in chunk), strict=True)
        yield pa.table({"number": numbers, "row": texts})


def encode_chunk(
    chunk: pa.Table, base_path: Path, max_length: int, places: Places = HERE
) -> pa.Table:
    """A table of `_ENCODED`: the rows that have an answer left, and those with a `fault`."""
    tokenizer = _tokenizer(places.here(base_path))
    found: list[dict[str, Any]] = []
    for number, text in zip(*(chunk[name].to_pylist() for name in ("number", "row")), strict=True):
        row = json.loads(text)
        try:
            encoded = encode_example(tokenizer, row["messages"], max_length)
        except (ValueError, KeyError) as error:
            name = row.get("row_id", number + 1)
            fault = f"training row {name}: field 'messages': {error}"
            found.append({"number": number, "fault": fault})
            continue
        if encoded is not None:
            ids = np.asarray(encoded.input_ids, np.int32)
            sha = hashlib.sha256(ids.tobytes() + bytes(encoded.trained))
            mark = int.from_bytes(sha.digest()[:8], "little", signed=True)
            told = {"tokens": ids, "trained": encoded.trained, "digest": mark}
            found.append({"number": number, **told})
    return pa.Table.from_pylist(found, schema=_ENCODED)


@lru_cache(maxsize=1)
def _tokenizer(base_path: Path) -> Any:
    from transformers import AutoTokenizer  # seconds to import

    return AutoTokenizer.from_pretrained(base_path)


def _gather(encoded: "ray.data.MaterializedDataset") -> Examples:
    """Where each row is, in the order of the rows, whatever the order of the blocks."""
    blocks = [
        entry.ref for bundle in encoded.iter_internal_ref_bundles() for entry in bundle.blocks
    ]
    nothing = np.zeros(0, np.int64)
    names = ("number", "digest", "length", "num_trained", "block", "offset")
    columns = {name: [nothing] for name in names}
    faults: list[tuple[int, str]] = []
    for place, ref in enumerate(blocks):
        table: pa.Table = ray.get(ref)
        if not table.num_rows:  # it may have no columns either
            continue
        numbers = {name: table[name].to_numpy() for name in ("number", "digest")}
        numbers["length"] = pc.list_value_length(table["tokens"]).to_numpy()
        numbers["num_trained"] = _sums(table["trained"])
        numbers["block"] = np.full(table.num_rows, place)
        numbers["offset"] = np.arange(table.num_rows)
        for name, values in numbers.items():
            columns[name].append(values)
        pairs = zip(numbers["number"].tolist(), table["fault"].to_pylist(), strict=True)
        faults += [(number, fault) for number, fault in pairs if fault is not None]
    if faults:
        raise InputError(min(faults)[1])
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    order = np.argsort(whole["number"])
    in_order = {name: values[order] for name, values in whole.items()}
    return Examples(
        blocks=tuple(blocks),
        block=in_order["block"].astype(np.int32),
        offset=in_order["offset"].astype(np.int32),
        length=in_order["length"].astype(np.int32),
        num_trained=in_order["num_trained"].astype(np.int32),
        digest=hashlib.sha256(in_order["digest"].astype(np.int64).tobytes()).hexdigest(),
    )


def _sums(lists: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The true values in each list; 0 for none."""
    column = lists.combine_chunks()
    before = np.concatenate([[0], np.cumsum(column.values.to_numpy(zero_copy_only=False))])
    return np.diff(before[column.offsets.to_numpy()])
