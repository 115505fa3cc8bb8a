"""Good rows and bad ones written apart: `data validate --fix`."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from haloforge.data.sidecar import read_sidecar, write_sidecar
from haloforge.data.validate.found import Found
from haloforge.errors import InputError

REJECTED = "rejected.jsonl"


def check_output(output: Path, files: Sequence[str]) -> None:
    """Raises InputError for an output that would take the place of an input or of the other."""
    rejected = output.with_name(REJECTED)
    if output == rejected:
        raise InputError(f"{output}: the bad rows are written there; choose another name")
    inputs = {Path(file).resolve() for file in files}
    for path in (output, rejected):
        if path.resolve() in inputs:
            raise InputError(f"{path} is read, and would be replaced; choose another name")


def write_apart(
    output: Path, files: Sequence[str], blocks: Iterable[pa.Table], found: Found, filters: Any
) -> None:
    """Writes the good rows of ROWS to `output`, each line as it was, and the bad ones beside it in
    `rejected.jsonl`: each with its file and line, the reasons, and its text as it was in `row`.

    Both files and their sidecars appear when all is written. Raises InputError where the rows are
    not those that were looked at.
    """
    rejected = output.with_name(REJECTED)
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
    fields = {**_lineage(files), "filters": filters, "seed": None, "read": len(found)}
    kept = len(found) - left_out.total()
    write_sidecar(output, **fields, left_out=dict(left_out), rows=kept)
    write_sidecar(rejected, **fields, left_out={"good": kept}, rows=left_out.total())


def _lineage(files: Sequence[str]) -> dict[str, Any]:
    """Where the rows of `files` are from, for a sidecar."""
    here = [Path(file) for file in files if Path(file).is_file()]
    parents = [parent for file in here if (parent := read_sidecar(file)) is not None]
    licences = {parent.licence for parent in parents}
    same = len(licences) == 1 and len(parents) == len(files)
    return {
        "origin": ", ".join(files),
        "revision": _sha256(here) if len(here) == len(files) else None,
        "licence": licences.pop() if same else None,
        "parents": parents,
    }


def _sha256(paths: Sequence[Path]) -> str:
    """The digest of a file, or of several one after another."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as handle:
            while part := handle.read(2**20):
                sha.update(part)
    return sha.hexdigest()


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
