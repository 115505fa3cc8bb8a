"""Stored samples to score: JSON lines or Parquet, read row by row with the place of every fault."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.data.jsonl import read_jsonl
from haloforge.data.problems import parse_problem
from haloforge.errors import InputError
from haloforge.schema import SAMPLE_SCHEMA, Problem, digest
from haloforge.store.shards import sample_shards

# Fields of a problem that no judge looks at: what rows have there is not looked at either.
NOT_JUDGED = {
    "messages",
    "system",
    "answer_start",
    "stop",
    "starter_code",
    "reference",
    "group",
    "source",
    "license",
    "difficulty",
    "tags",
}
JUDGED = set(Problem.model_fields) - NOT_JUDGED - {"problem_id"}
KNOWN = {*Problem.model_fields, *SAMPLE_SCHEMA.names, "code"}
BATCH_ROWS = 256


@dataclass
class Survey:
    """What an input holds: how many rows, their digest, one problem of each kind that rows hold,
    and the fields that nothing looks at."""

    rows: int = 0
    digest: str = ""
    kinds: dict[str, Problem] = field(default_factory=dict)
    unused: set[str] = field(default_factory=set)


def survey(path: Path, problems: Collection[str] | None) -> Survey:
    """Reads all of `path` once. Raises InputError that names file, row and field for the first row
    that cannot be judged, and for a `sample_id` that repeats. `problems` are ids, as in
    `read_samples`."""
    found = Survey()
    seen: set[str] = set()
    for place, row, sample in _read(path, problems):
        if sample["sample_id"] in seen:
            raise InputError(f"{place}: field 'sample_id': '{sample['sample_id']}' repeats")
        seen.add(sample["sample_id"])
        found.rows += 1
        found.digest = digest(found.digest, *sample.values())
        found.unused |= row.keys() - KNOWN
        if sample["problem"]:
            problem = Problem.model_validate_json(sample["problem"])
            kind = f"{problem.language} {problem.judge}"
            found.kinds.setdefault(kind, problem.model_copy(update={"problem_id": place}))
    return found


def read_samples(path: Path, problems: Collection[str] | None) -> Iterator[dict[str, Any]]:
    """The rows of STORED_SCHEMA in `path`: a file of JSON lines or of Parquet, a folder of Parquet
    files, or that of a benchmark or a cycle, of which the committed samples are read.

    A row's problem is the one that its `problem_id` names among `problems`, where that is given and
    it has one; else it is in the row's own fields. A sample without an id is named by its place and
    content.
    """
    for _, _, sample in _read(path, problems):
        yield sample


def _read(
    path: Path, problems: Collection[str] | None
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Place, row as it stands, and row of STORED_SCHEMA."""
    index = -1
    for index, (place, whole) in enumerate(_rows(path)):
        row = _without_nulls(whole)
        yield place, row, _sample(row, index, place, problems)
    if index < 0:
        raise InputError(f"{path}: holds no samples")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix != ".parquet" and not path.is_dir():
        yield from ((f"{path}, line {number}", row) for number, row in read_jsonl(path))
        return
    for file in _files(path):
        try:
            with pq.ParquetFile(file) as parquet:
                rows = (row for b in parquet.iter_batches(BATCH_ROWS) for row in b.to_pylist())
                yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, 1))
        except FileNotFoundError:
            raise InputError(f"{file}: no such file") from None
        except (OSError, pa.ArrowException) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{file}: not a Parquet file that can be read ({reason})") from None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sample_shards(path) or sorted(path.glob("*.parquet"))


def _without_nulls(value: Any) -> Any:
    """Parquet gives every row every column: what is null is not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _sample(
    row: dict[str, Any], index: int, place: str, problems: Collection[str] | None
) -> dict[str, Any]:
    for name in ("completion", "code", "sample_id", "problem_id"):
        if not isinstance(row.get(name, ""), str):
            raise InputError(f"{place}: field '{name}': expected text, found {row[name]!r:.40}")
    if _clean(row.get("sample_id", "")) != row.get("sample_id", ""):
        raise InputError(f"{place}: field 'sample_id': half a surrogate pair, no text")
    if ("completion" in row) == ("code" in row):
        raise InputError(f"{place}: give field 'completion' or 'code', one of them")
    problem = None
    problem_id = row.get("problem_id")
    if problems is None or problem_id is None:
        held = {name: row[name] for name in JUDGED & row.keys()}
        if not isinstance(row.get("prompt"), str):  # turns, as some have them
            held.pop("prompt", None)
        problem_id = problem_id or digest(json.dumps(held, sort_keys=True))
        asked = {} if "prefix" in held else {"prompt": ""}
        found = parse_problem({**asked, **held, "problem_id": problem_id}, place)
        problem = found.model_dump_json(exclude_defaults=True)
    elif problem_id not in problems:
        raise InputError(f"{place}: field 'problem_id': '{problem_id}' is not among the problems")
    text = {name: _clean(row[name]) for name in ("completion", "code") if name in row}
    return {
        "sample_id": row.get("sample_id") or digest(index, problem_id, *text.items()),
        "problem_id": problem_id,
        "index": index,
        "completion": text.get("completion"),
        "code": text.get("code"),
        "problem": problem,
    }


def _clean(text: str) -> str:
    """JSON can hold half a surrogate pair, UTF-8 cannot."""
    return text.encode(errors="replace").decode()
