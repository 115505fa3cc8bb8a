"""Files of rows as a stream of Ray Data, whatever their format and wherever they are.

A row travels as JSON text with its place, so that one form fits every set, and so that each fault
can name file and line. Rows come out in the order of their files; memory does not grow with them.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import ray
from ray.data import Dataset, TaskPoolStrategy

from haloforge.errors import InfraError, InputError, ResourceError
from haloforge.report.progress import Report
from haloforge.store.storage import apart, filesystem, located, reaching, within

ROWS = pa.schema([("place", pa.string()), ("row", pa.string())])
"""What `read_rows` streams: `row` is a JSON object, `place` is its file and line, or row number."""

BLOCK_BYTES = 16 * 2**20
READ_CPUS = 0.1
"""What reading books: it mostly waits for the stages after it. Ray Data puts stages that book alike
into one task; with another number of CPUs a stage has tasks of its own, of one file too."""
CPUS_PER_READER = 8
"""Reading is so much faster than what is done with the rows, and more."""
_FAR = 4
"""Files of a store or a hub that are read at once, at least: these wait for it."""
_BATCH = 1000
_SLICE = 50
"""Rows of a table that are made Python's at a time: one row may hold megabytes of tests."""
_Rows = Iterator[tuple[str, str]]


def list_files(location: str) -> list[str]:
    """The files of rows at `location`, sorted: itself, or all below it with a known ending.

    Each is called as `located` has it, so that what is compared or read again is the same file.
    Raises InputError where there is none, InfraError where that cannot be asked."""
    location = located(location)
    system, path = filesystem(location)
    with reaching(location):
        found = system.get_file_info(path)
        if found.type == pafs.FileType.File:
            return [location]
        if found.type == pafs.FileType.NotFound:
            raise InputError(f"{location}: no such file")
        inside = system.get_file_info(pafs.FileSelector(path, recursive=True))
    names = sorted(
        each.path.removeprefix(path).lstrip("/")
        for each in inside
        if each.type == pafs.FileType.File
        and _format(each.path) is not None
        and not _tells_of_rows(each.path.rpartition("/")[2])
    )
    if not names:
        raise InputError(f"{location}: holds no file that ends in {', '.join(_READERS)}")
    return within(location, names)


def read_rows(files: Sequence[str]) -> Dataset:
    """The rows of `files` as ROWS, in order. Ray must be up.

    A file that cannot be read raises where the stream is consumed by `drain`."""
    names = ray.data.from_items([{"file": file} for file in files], override_num_blocks=len(files))
    # Of this stream alone: what else the process executes need not wait for its turn.
    names.context.execution_options.preserve_order = True
    names.context.target_max_block_size = BLOCK_BYTES
    # Without a bound Ray Data sets aside for reading as many CPUs as for the stage that reads it.
    most = max(1, int(ray.cluster_resources().get("CPU", 0) / CPUS_PER_READER))
    if any("://" in file for file in files):
        most = max(most, _FAR)
    readers = TaskPoolStrategy(size=min(len(files), most))
    return names.map_batches(_read_files, batch_size=1, num_cpus=READ_CPUS, compute=readers)


def drain(rows: Dataset) -> Iterator[pa.Table]:
    """The blocks of a stream, as they come. Raises the HaloforgeError that a stage met."""
    try:
        # Not by `iter_batches`: its threads outlive it for a moment, and where Ray is shut down by
        # then, its core ends this process without a word.
        for bundle in rows.iter_internal_ref_bundles():
            for block in bundle.blocks:
                if (table := ray.get(block.ref)).num_rows:
                    yield table
    except ray.exceptions.RayTaskError as error:
        # Not always by its cause: of what a stage raised Ray may keep the traceback's text only.
        told = _TOLD.search(str(error))
        if told is None:
            raise
        raise _KINDS[told[1]](told[2]) from None


_KINDS = {kind.__name__: kind for kind in (InputError, ResourceError, InfraError)}
_TOLD = re.compile(rf"^{InputError.__module__}\.({'|'.join(_KINDS)}): (.*)$", re.MULTILINE)


def with_progress(
    blocks: Iterable[pa.Table], files: Sequence[str], name: str, report: Report
) -> Iterator[pa.Table]:
    """The blocks as they come, with their progress shown in MB of `files`, which may be packed. A
    block's MB are its column `bytes`, where it has one, else those of its rows' text."""
    total = sum(filesystem(file)[0].get_file_info(filesystem(file)[1]).size or 0 for file in files)
    whole = max(1, -(-total // 10**6))
    bytes_seen = shown = 0
    with report.stage(name, whole, "MB") as stage:
        for block in blocks:
            yield block
            told = "bytes" in block.column_names
            bytes_seen += pc.sum(block["bytes"]).as_py() or 0 if told else block["row"].nbytes
            done = min(bytes_seen // 10**6, whole)
            stage.advance(done - shown)
            shown = done
        stage.advance(whole - shown)


def _read_files(batch: dict[str, Any]) -> Iterator[pa.Table]:
    for file in batch["file"]:
        places: list[str] = []
        texts: list[str] = []
        size = 0
        for place, text in read_file(str(file)):
            places.append(place)
            texts.append(text)
            size += len(text)
            if len(texts) == _BATCH or size >= BLOCK_BYTES:
                yield pa.table({"place": places, "row": texts}, schema=ROWS)
                places, texts, size = [], [], 0
        yield pa.table({"place": places, "row": texts}, schema=ROWS)


def read_file(location: str) -> _Rows:
    """Place and JSON text of each row in one file; whether the text of a .jsonl line is JSON is not
    looked at. Raises InputError, naming the file, for one that cannot be read, and InfraError for
    one in a store that does not answer."""
    system, path = filesystem(location)
    form = _format(path)
    if form is None:
        raise InputError(f"{location}: expected a name that ends in {', '.join(_READERS)}")
    with reaching(location):
        if form in _SEEKING:
            with system.open_input_file(path) as handle:
                yield from _READERS[form](location, handle)
        else:
            with system.open_input_stream(path, compression=None) as handle:
                plain = gzip.GzipFile(fileobj=handle) if path.endswith(".gz") else handle
                yield from _READERS[form](location, plain)


def _lines(location: str, handle: Any) -> _Rows:
    # newline="\n": other characters that Python takes for line ends stand inside of JSON text.
    # utf-8-sig: some systems begin a file with a mark of its encoding.
    begun = _format(apart(location)[0]) != ".json"
    for number, line in enumerate(io.TextIOWrapper(handle, "utf-8-sig", newline="\n"), 1):
        if line.strip():
            if not begun and line.lstrip().startswith("["):
                raise InputError(
                    f"{location}: expected JSON Lines, one object a line, found a list"
                )
            begun = True
            yield f"{location}, line {number}", line


def _csv(location: str, handle: Any) -> _Rows:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.TextIOWrapper(handle, "utf-8-sig", newline=""), strict=True)
    begins = 2
    for row in reader:
        place = f"{location}, line {begins}"
        if None in row or None in row.values():
            raise InputError(f"{place}: expected {len(reader.fieldnames or [])} columns")
        yield place, json.dumps(row, ensure_ascii=False)
        begins = reader.line_num + 1


def _parquet(location: str, handle: Any) -> _Rows:
    with pq.ParquetFile(handle) as file:
        yield from _table_rows(location, file.iter_batches(_SLICE))


def _arrow(location: str, handle: Any) -> _Rows:
    """Both forms: the file, and the stream that `datasets` writes."""
    is_file = handle.read(6) == b"ARROW1"
    handle.seek(0)
    reader = ipc.open_file(handle) if is_file else ipc.open_stream(handle)
    with reader:
        batches = (
            (reader.get_batch(place) for place in range(reader.num_record_batches))
            if is_file
            else reader
        )
        yield from _table_rows(location, batches)


def _table_rows(location: str, batches: Iterable[pa.RecordBatch]) -> _Rows:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _SLICE):
            for row in batch.slice(start, _SLICE).to_pylist():
                number += 1
                yield f"{location}, row {number}", json.dumps(row, ensure_ascii=False, default=str)


_READERS: dict[str, Callable[[str, Any], _Rows]] = {
    ".jsonl": _lines,
    ".json": _lines,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
_SEEKING = (".parquet", ".arrow")


def _format(name: str) -> str | None:
    """The known ending of a name, .gz aside; a file on the hub may have one of its own."""
    plain = name.removesuffix(".gz")
    return next((ending for ending in _READERS if plain.endswith(ending)), None)


def _tells_of_rows(name: str) -> bool:
    """Whether a file stands beside rows, of ours or of `datasets`, and holds none."""
    return name.endswith(".meta.json") or name in _BESIDE_ROWS


_BESIDE_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
