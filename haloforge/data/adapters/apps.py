"""APPS (Hendrycks et al. 2021).

Shape: `codeparrot/apps` on the hub, by the columns of copies of it (dataset cards of gohsyi/apps
and jvelja/apps_skeletonized); `id` is taken for `problem_id` too. `solutions` and `input_output`
are JSON as text, and some are empty. A problem whose `input_output` has `fn_name` is judged by
calls, by the rules of `eval/testing_util.py` in hendrycks/apps: of a method of class `Solution` or
of a function; lists may stand for tuples, and the first of an expected list for all of it.
"""

import json
import re
from typing import Any

from haloforge.data.adapters.adapter import (
    Adapted,
    Adapter,
    LeftOut,
    Options,
    fenced,
    shape,
    turns,
    unix,
)
from haloforge.data.adapters.contest import distinct, stdio
from haloforge.data.adapters.fields import cases, number, text, unpacked, wrong
from haloforge.data.rows import Row
from haloforge.data.showing import hidden_names
from haloforge.schema import digest

FIELDS = "question solutions input_output difficulty url starter_code"
LOADED = shape(f"problem_id {FIELDS}")
LINES = shape(f"id {FIELDS}")
LIMITS = {"wall_s": 30}
"""Of all calls together; the authors give each 4 s."""
CALLS = """\
import json
cases = json.loads({cases})

def plain(value):
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value

def keyed(value):
    if isinstance(value, dict) and all(str(key).lstrip("-").isdigit() for key in value):
        return {{int(key): part for key, part in value.items()}}
    return value

def check(candidate):
    call = {call}
    for given, wanted in cases:
        if len(given) == 1:
            given = [keyed(given[0])]
        found, wanted = plain(call(*given)), keyed(wanted)
        alone = keyed(wanted[0]) if isinstance(wanted, list) and wanted else wanted
        assert found == wanted or found == alone, (given, found, wanted)
"""


def adapt(row: Row, options: Options) -> Adapted:
    """The problem in Python with its tests and first solution; the prompt says what is called."""
    tests = unpacked(row, "input_output") or {}
    if not isinstance(tests, dict):
        raise wrong(row, "input_output", "JSON with 'inputs' and 'outputs'")
    solutions = unpacked(row, "solutions") or []
    if not isinstance(solutions, list) or not all(isinstance(code, str) for code in solutions):
        raise wrong(row, "solutions", "JSON with a list of texts")
    code = unix(solutions[0]) if solutions else None
    name = tests.get("fn_name")
    judged = _called(row, tests, str(name), code) if name else _printed(row)
    if isinstance(judged, LeftOut):
        return Adapted(judged, judged)
    number_field = "id" if "id" in row else "problem_id"
    place = number(row, number_field)
    if place is None:
        raise wrong(row, number_field, "a number")
    key = f"apps/{_part(row)}/{place:.0f}"
    problem: dict[str, Any] = {
        "problem_id": key,
        "group": text(row, "url") or key,
        **judged,
        "reference": {"python": code} if code else {},
        "difficulty": text(row, "difficulty") or None,
    }
    conversation = turns(judged["prompt"], fenced(code, "python")) if code else None
    return Adapted(problem, conversation or LeftOut("it has no solution"))


def _part(row: Row) -> str:
    """The set's two splits count from 0 each: by the name of the row's file, or by its question,
    where that does not tell."""
    file = row.place.rpartition(", ")[0].rpartition("/")[2]
    found = re.search(r"(?<![a-z])(train|test)(?![a-z])", file.lower())
    return found[1] if found else digest(text(row, "question"))


def _printed(row: Row) -> dict[str, Any] | LeftOut:
    tests = distinct(cases(row, "input_output"))
    if not tests:
        return LeftOut("it has no tests")
    return stdio(text(row, "question"), tests, "python")


def _called(
    row: Row, tests: dict[str, Any], name: str, solution: str | None
) -> dict[str, Any] | LeftOut:
    inputs, outputs = tests.get("inputs") or [], tests.get("outputs") or []
    if not inputs or len(inputs) != len(outputs):
        return LeftOut("it has no tests")
    if not all(isinstance(given, list) for given in inputs):
        return LeftOut("its calls have no lists of arguments")
    starter = unix(text(row, "starter_code")).strip()
    in_class = "class Solution" in (starter or solution or "")
    question = text(row, "question").strip()
    if starter:
        question += f"\n\nBegin your answer with this code:\n\n```python\n{starter}\n```"
    wanted = [*(["Solution"] if in_class else []), name]
    if hidden_names(question, wanted):
        what = f"class `Solution` with the method `{name}`" if in_class else f"function `{name}`"
        question += f"\n\nWrite the {what}."
    call = f"candidate().{name}" if in_class else "candidate"
    pairs = json.dumps(json.dumps(list(zip(inputs, outputs, strict=True))))
    return {
        "prompt": f"{question}\n\nAnswer in Python, in a ```python block.",
        "judge": "function",
        "language": "python",
        "test_code": CALLS.format(cases=pairs, call=call),
        "entry_point": "Solution" if in_class else name,
        "limits": LIMITS,
    }


APPS = Adapter(Options, (LOADED, LINES), adapt)
