"""`data split`: a file of rows in parts, by problem and group, stratified by difficulty."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from haloforge.data.asked import parse_row, turns_of
from haloforge.data.keys import Digests, components, digest64, names_of, ranks, turns_digest
from haloforge.data.problems import is_answered
from haloforge.data.sidecar import lineage, write_sidecar, wrote
from haloforge.data.streams import drain, list_files, read_rows, with_progress
from haloforge.data.written import gather, write_rows
from haloforge.errors import InputError
from haloforge.report.progress import Report

NO_DIFFICULTY = "none"
KEYS = pa.schema(
    [
        ("prompt", pa.uint64()),
        ("problem", pa.uint64()),
        ("group", pa.uint64()),
        ("difficulty", pa.string()),
        ("bytes", pa.int64()),
    ]
)
"""What pass one makes of a row: digests of its prompt, of its `problem_id` and of its `group`, each
of its prompt where it has none, and its difficulty."""


@dataclass(frozen=True)
class Part:
    """What was written of one part; `difficulties` counts its rows by theirs."""

    name: str
    path: Path
    rows: int
    problems: int
    difficulties: Counter[str]


def parse_parts(text: str) -> dict[str, float]:
    """The shares in `train=0.8,test=0.2`. Raises InputError for names that can be no files, and for
    shares that are not positive and 1 in all."""
    shares: dict[str, float] = {}
    for piece in text.split(","):
        name, _, value = (side.strip() for side in piece.partition("="))
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not re.fullmatch(r"[\w-]+", name) or not 0 < share <= 1 or name in shares:
            raise InputError(f"--parts: expected NAME=SHARE, each name once, found {piece!r}")
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"--parts: the shares are {sum(shares.values()):g} in all, expected 1")
    return shares


def split(
    source: str, output: Path, shares: Mapping[str, float], seed: int, report: Report
) -> list[Part]:
    """Writes the rows of `source`, for SFT or problems, to a file a part in the folder `output`:
    the lines as they are, in their order, with a sidecar. Ray must be up.

    Which part a row is in depends on `seed` and the rows, not on their order; see `allot`. Raises
    InputError for a row that asks nothing, for a part that no row would be in, and for one that
    would replace a file that is no such part.
    """
    files = list_files(source)
    outputs = [output / f"{name}.jsonl" for name in shares]
    for path in outputs:
        if str(path.resolve()) in {str(Path(file).resolve()) for file in files}:
            raise InputError(f"{path}: is read and would be replaced; choose another --output")
        if path.exists() and not wrote(path, source, "part"):
            raise InputError(
                f"{path}: is there, and is no part of {source} as it was split before; choose "
                "another --output"
            )
    come_from = lineage(source, files)
    names: list[str] = []
    stream = drain(read_rows(files).map_batches(_keys, batch_size=None, batch_format="pyarrow"))
    told = with_progress(stream, files, "reading rows", report)
    keys = gather(_coded(told, names), ["prompt", "problem", "group", "difficulty"])
    if not len(keys["prompt"]):
        raise InputError(f"{source}: holds no rows")
    strata = np.array([digest64(name) for name in names], np.uint64)[keys["difficulty"]]
    same = components(keys["prompt"], keys["problem"], keys["group"])
    target = allot(same, keys["prompt"], strata, list(shares.values()), seed)
    for number, name in enumerate(shares):
        if not (target == number).any():
            raise InputError(
                f"{source}: part '{name}' would be empty: rows that stay together leave "
                f"{len(np.unique(same))} to share out; give it a greater share, or fewer --parts"
            )
    told = with_progress(drain(read_rows(files)), files, "writing parts", report)
    write_rows(told, target, outputs, source)
    parts = [
        _part(name, path, target == number, keys, names)
        for number, (name, path) in enumerate(zip(shares, outputs, strict=True))
    ]
    for part in parts:
        write_sidecar(
            part.path,
            **come_from,
            filters={"part": part.name, "shares": dict(shares)},
            seed=seed,
            read=len(target),
            left_out={"in another part": len(target) - part.rows},
            rows=part.rows,
        )
    return parts


def _part(
    name: str, path: Path, chosen: NDArray[Any], keys: Mapping[str, NDArray[Any]], names: list[str]
) -> Part:
    counts = np.bincount(keys["difficulty"][chosen], minlength=len(names))
    difficulties = Counter({names[code]: int(count) for code, count in enumerate(counts)})
    problems = len(np.unique(keys["problem"][chosen]))
    return Part(name, path, int(chosen.sum()), problems, difficulties)


def _keys(batch: pa.Table) -> pa.Table:
    rows = [
        row_keys(parse_row(line, place), place) | {"bytes": len(line)}
        for place, line in zip(batch["place"].to_pylist(), batch["row"].to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, KEYS)


def row_keys(row: dict[str, Any], place: str) -> dict[str, Any]:
    """The KEYS of a row but for its bytes. The system's turns are no part of a prompt: one problem
    put by two of them is one. Raises InputError for a row that asks nothing."""
    turns = turns_of(row, place)
    asked = turns[:-1] if is_answered(turns) else turns
    prompt = turns_digest(asked)
    names = {name: _label(row, name, place) for name in ("problem_id", "group", "difficulty")}
    return {
        "prompt": prompt,
        "problem": digest64(names["problem_id"]) if names["problem_id"] else prompt,
        "group": digest64(names["group"]) if names["group"] else prompt,
        "difficulty": names["difficulty"],
    }


def _label(row: dict[str, Any], name: str, place: str) -> str | None:
    """A field that others' sets hold as a number as well."""
    value = row.get(name)
    if value is not None and not isinstance(value, str | int | float):
        raise InputError(f"{place}: field '{name}': expected text, found {value!r:.40}")
    return None if value is None else str(value).encode(errors="replace").decode()


def _coded(blocks: Iterable[pa.Table], names: list[str]) -> Iterator[pa.Table]:
    """The blocks with each difficulty as its place in `names`, which grows by those that are new.
    Names of 1,000,000 rows would take more memory than all else that is kept of them."""
    codes: dict[str, int] = {}
    for block in blocks:
        found = [name or NO_DIFFICULTY for name in block["difficulty"].to_pylist()]
        column = [codes.setdefault(name, len(codes)) for name in found]
        names[len(names) :] = list(codes)[len(names) :]
        place = block.column_names.index("difficulty")
        yield block.set_column(place, "difficulty", pa.array(column, pa.int32()))


def allot(
    component: NDArray[np.int64],
    prompt: Digests,
    difficulty: Digests,
    shares: list[float],
    seed: int,
) -> NDArray[np.int8]:
    """The part of each row, by the digests of its prompt and difficulty; rows of one component are
    in one part.

    Components with the same difficulties are a stratum. In each they lie in a random order along a
    circle, an arc a row; parts own sectors of it as large as their shares, and a component belongs
    to the part that owns its middle. So what a part gets of a stratum differs from its share by the
    rows of one component at most (systematic sampling; Cochran, Sampling Techniques, ch. 8). The
    circle of each stratum is turned by the rows of those before it, so that the shares of all rows
    hold where strata are small, too.
    """
    _, first, of_row = np.unique(component, return_index=True, return_inverse=True)
    count = len(first)
    name = names_of(component, prompt)[first]
    stratum = np.zeros(count, np.uint64)
    met = np.unique(np.stack([of_row.astype(np.uint64), difficulty]), axis=1)
    np.bitwise_xor.at(stratum, met[0].astype(np.int64), ranks(met[1], seed))
    order = np.lexsort([ranks(name, seed), stratum])

    size = np.bincount(of_row)[order].astype(np.float64)
    end = np.cumsum(size)
    _, begins, inverse = np.unique(stratum[order], return_index=True, return_inverse=True)
    start = (end - size)[begins]
    total = np.diff(np.append(start, end[-1]))
    middle = (end - size / 2 - start[inverse]) / total[inverse] + start[inverse] / end[-1]
    sectors = np.cumsum(shares)[:-1]
    part = np.empty(count, np.int8)
    part[order] = np.searchsorted(sectors, middle % 1, side="right")
    return part[of_row]
