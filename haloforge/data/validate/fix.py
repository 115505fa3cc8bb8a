"""Good rows and bad ones written apart: `data validate --fix`."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from haloforge.data.jsonl import whole
from haloforge.data.sidecar import sidecar_path, write_sidecar, wrote
from haloforge.data.validate.found import Found
from haloforge.data.written import ended
from haloforge.errors import InputError


def rejected_path(output: Path) -> Path:
    """Where the bad rows are written: beside each output its own, which no other replaces."""
    return output.with_name(f"{output.stem}.rejected.jsonl")


def origin_of(files: Sequence[str]) -> str:
    """What the sidecars of both outputs call that which was read."""
    return ", ".join(files)


def check_outputs(
    files: Sequence[str], against: Sequence[str], fix: Path | None, report: Path | None
) -> None:
    """Raises InputError for an output that is a folder, that would take the place of what is read
    or of the other's, and, where rows are written, of what an earlier run on the same `files` did
    not write."""
    taken = {Path(file).resolve(): "is read, and would be replaced" for file in (*files, *against)}
    taken |= {sidecar_path(path): "stands beside what is read" for path in taken}
    for path in _outputs(fix, report):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file to write")
        if (why := taken.get(path.resolve())) is not None:
            raise InputError(f"{path}: {why}; choose another name")
        taken |= {each.resolve(): "is written by --fix" for each in (path, sidecar_path(path))}
    for path in _outputs(fix):
        if path.exists() and not wrote(path, origin_of(files), "similar"):
            raise InputError(
                f"{path}: is there, and was not made of {origin_of(files)} as it stands; choose "
                "another name"
            )


def _outputs(fix: Path | None, report: Path | None = None) -> Iterator[Path]:
    """One after the other: of "." no name can be made, so it must have been refused by then."""
    if fix is not None:
        yield fix
        yield rejected_path(fix)
    if report is not None:
        yield report


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
    with whole(output, rejected) as [good, bad]:
        begin, reasons = 0, found.faults()
        for block in blocks:
            lines = block["row"].to_pylist()
            faulty = found.bad[begin : begin + len(lines)]
            if len(faulty) < len(lines):
                break
            if not faulty.any():
                good.writelines(map(ended, lines))
                begin += len(lines)
                continue
            for line, wrong in zip(map(ended, lines), faulty, strict=True):
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
