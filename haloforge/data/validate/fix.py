"""Good rows and bad ones written apart: `data validate --fix`."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from haloforge.data.sidecar import write_sidecar
from haloforge.data.validate.found import Found
from haloforge.errors import InputError


def rejected_path(output: Path) -> Path:
    """Where the bad rows are written: beside each output its own, which no other replaces."""
    return output.with_name(f"{output.stem}.rejected.jsonl")


def check_output(output: Path, files: Sequence[str]) -> None:
    """Raises InputError for an output that is a folder or would take the place of an input."""
    inputs = {Path(file).resolve() for file in files}
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name a file to write")
    for path in (output, rejected_path(output)):
        if path.resolve() in inputs:
            raise InputError(f"{path} is read, and would be replaced; choose another name")


def write_apart(
    output: Path,
    files: Sequence[str],
    blocks: Iterable[pa.Table],
    found: Found,
    come_from: Mapping[str, Any],
    filters: Mapping[str, Any],
) -> None:
    """Writes the good rows of ROWS to `output`, each line as it was, and the bad ones to
    `rejected_path`: each with its file and line, the reasons, and its text as it was in `row`.
    `come_from` is what their sidecars say of the rows (see `lineage`).

    Both files and their sidecars appear when all is written. Raises InputError where the rows are
    not those that were looked at.
    """
    rejected = rejected_path(output)
    left_out = Counter[str]()
    with _whole(output) as good, _whole(rejected) as bad:
        begin, reasons = 0, found.faults()
        for block in blocks:
            lines = block["row"].to_pylist()
            faulty = found.bad[begin : begin + len(lines)]
            if len(faulty) < len(lines):
                break
            ended = (line if line.endswith("\n") else f"{line}\n" for line in lines)
            if not faulty.any():
                good.writelines(ended)
                begin += len(lines)
                continue
            for line, wrong in zip(ended, faulty, strict=True):
                if not wrong:
                    good.write(line)
                    continue
                row, faults = next(reasons)
                file, number = found.place(row)
                left_out[faults[0][0]] += 1
                why = [{"fault": kind, "why": reason} for kind, reason in faults]
                told = {"file": file, "line": number, "reasons": why, "row": line}
                bad.write(json.dumps(told, ensure_ascii=False) + "\n")
            begin += len(lines)
        if begin != len(found):
            raise InputError(f"{', '.join(files)}: changed since it was looked at")
    fields = {**come_from, "filters": filters, "seed": None, "read": len(found)}
    kept = len(found) - left_out.total()
    write_sidecar(output, **fields, left_out=dict(left_out), rows=kept)
    write_sidecar(rejected, **fields, left_out={"good": kept}, rows=left_out.total())


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A file that appears when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
