"""`data prompts`: what a file of SFT rows or problems asks, each prompt once, as problems."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from haloforge.data.adapters.own import showing_problem
from haloforge.data.asked import parse_row, turns_of
from haloforge.data.keys import digest64
from haloforge.data.problems import is_answered
from haloforge.data.sidecar import lineage, write_sidecar
from haloforge.data.streams import drain, list_files, read_rows, with_progress
from haloforge.data.written import LEFT_OUT, gather, write_rows
from haloforge.errors import InputError
from haloforge.report.progress import Report
from haloforge.report.rows import one_line
from haloforge.schema import Problem

FOUND = pa.schema(
    [
        ("place", pa.string()),
        ("row", pa.string()),
        ("prompt", pa.uint64()),
        ("problem", pa.uint64()),
        ("tested", pa.bool_()),
        ("bytes", pa.int64()),
    ]
)
"""A row's problem as JSON, digests of its prompt and id, whether more than compiling is judged."""
_ASKED = {"prompt", "messages", "prefix", "answer_start", "stop"}


@dataclass(frozen=True)
class Prompts:
    """What was written, of how many rows."""

    read: int
    written: int
    tested: int


def write_prompts(source: str, output: Path, limit: int | None, report: Report) -> Prompts:
    """Writes the problems that the rows of `source` ask to `output`, a line each, in their order,
    with a sidecar. Ray must be up.

    A prompt that repeats is one problem: of its first row that has tests, if one has. `limit` takes
    that many, the same ones wherever they stand, as `fixed_subset` does. Raises InputError naming
    file, line and field of a row that is no problem, and where one `problem_id` has two prompts.
    """
    files = list_files(source)
    if str(output.resolve()) in {str(Path(file).resolve()) for file in files}:
        raise InputError(f"{output}: is read and would be replaced; choose another --output")

    come_from = lineage(source, files)

    def blocks(only: list[str], name: str) -> Any:
        stream = read_rows(files).map_batches(
            _problems, fn_kwargs={"only": only}, batch_size=None, batch_format="pyarrow"
        )
        return with_progress(drain(stream), files, name, report)

    numbers = ["prompt", "problem", "tested"]
    keys = gather(blocks([*numbers, "bytes"], "reading rows"), numbers)
    read = len(keys["prompt"])
    if not read:
        raise InputError(f"{source}: holds no rows")
    distinct = first_of_each(keys["prompt"], keys["tested"])
    ids, counts = np.unique(keys["problem"][distinct], return_counts=True)
    if (counts > 1).any():
        twice = np.flatnonzero(keys["problem"] == ids[counts > 1][0])
        _refuse(blocks(["place", "row", "bytes"], "reading rows"), int(twice[0]), source)
    # The ids' digests sort as those that `fixed_subset` takes the least of.
    chosen = distinct[np.argsort(keys["problem"][distinct])][:limit]
    target = np.full(read, LEFT_OUT, np.int8)
    target[chosen] = 0
    write_rows(blocks(["row", "bytes"], "writing prompts"), target, [output], source)
    done = Prompts(read, len(chosen), int(keys["tested"][chosen].sum()))
    write_sidecar(
        output,
        **come_from,
        filters={"prompts": "distinct", "limit": limit},
        seed=None,
        read=read,
        left_out={
            "its prompt repeats": read - len(distinct),
            "above the limit": len(distinct) - len(chosen),
        },
        rows=len(chosen),
    )
    return done


def _refuse(blocks: Any, index: int, source: str) -> None:
    """Names the id that has two prompts, of which the row `index` has one."""
    for block in blocks:
        if index < block.num_rows:
            place = block["place"][index].as_py()
            found = json.loads(block["row"][index].as_py()).get("problem_id")
            raise InputError(
                f"{place}: field 'problem_id': '{one_line(str(found))}' is that of another prompt "
                "as well"
            )
        index -= block.num_rows
    raise InputError(f"{source}: has changed while it was read")


def first_of_each(prompt: NDArray[np.uint64], tested: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The row of each prompt: the first that is tested, else the first."""
    order = np.lexsort([np.arange(len(prompt)), ~tested, prompt])
    return order[np.unique(prompt[order], return_index=True)[1]]


def _problems(batch: pa.Table, only: list[str]) -> pa.Table:
    found = []
    for place, line in zip(batch["place"].to_pylist(), batch["row"].to_pylist(), strict=True):
        row = asked_row(parse_row(line, place), place)
        problem = showing_problem(row, place)
        held = problem.model_dump(exclude_defaults=True)
        if "problem_id" not in row:  # whoever reads the file derives the same
            del held["problem_id"]
        found.append(
            {
                "place": place,
                "row": json.dumps(held, ensure_ascii=False),
                "prompt": digest64(problem.prefix or str(problem.turns())),
                "problem": digest64(problem.problem_id),
                "tested": problem.judge != "compile",
                "bytes": len(line),
            }
        )
    return pa.Table.from_pylist(found, FOUND).select(only)


def asked_row(row: dict[str, Any], place: str) -> dict[str, Any]:
    """The fields of the problem that a row asks: its last answer left out, and what an SFT row has
    that no problem has. One turn of a user is a `prompt`, and what came before is its `system`."""
    turns = turns_of(row, place)
    if "text" not in row and not is_answered(turns):
        return row
    rest = {key: value for key, value in row.items() if key in Problem.model_fields}
    rest = {key: value for key, value in rest.items() if key not in _ASKED}
    asked = turns[:-1] if is_answered(turns) else turns
    roles = [turn["role"] for turn in asked]
    if roles == ["user"]:
        return {**rest, "prompt": asked[0]["content"]}
    if roles == ["system", "user"]:
        return {**rest, "prompt": asked[1]["content"], "system": asked[0]["content"]}
    if "user" not in roles:
        raise InputError(f"{place}: no turn is the user's, so nothing is asked")
    return {**rest, "messages": [{k: turn[k] for k in ("role", "content")} for turn in asked]}
