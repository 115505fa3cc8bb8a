"""HumanEval+ and MBPP+ (Liu et al. 2023), from the JSON lines that EvalPlus releases.

A row has inputs and a right solution but no expected values. So the tests' box runs that solution
on each input and compares what the answer gives, by the rules of EvalPlus 0.3.1.
"""

import json
from collections.abc import Iterable, Iterator

from haloforge.data.rows import Row
from haloforge.data.suites.humaneval import evalplus_chat
from haloforge.data.suites.style import INSTRUCT, Style
from haloforge.schema import Problem

END = ["<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint("]
HUMANEVAL_STOP = [*END, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "]
MBPP_STOP = [*END, '\n"""', "\nassert"]
LIMITS = {"wall_s": 20, "memory_mb": 4096}
"""Some problems have a thousand inputs; EvalPlus allows 4 GiB."""
RELATIVE = 1e-7

CHECK = """\
import copy, json, math
solution = {{}}
exec({solution!r}, solution)
reference = solution[{name!r}]

def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value

inputs = [{typed} for i in json.loads({inputs!r})]

def floats(value):
    many = isinstance(value, (list, tuple)) and len(value) > 0
    return all(isinstance(v, float) for v in value) if many else isinstance(value, float)

def close(out, expected, atol):
    if isinstance(expected, (list, tuple)):
        same = isinstance(out, (list, tuple)) and len(out) == len(expected)
        return same and all(close(o, e, atol) for o, e in zip(out, expected))
    return out == expected or abs(out - expected) <= atol + {relative} * abs(expected)

def check(candidate):
    atol = {atol}
    expected = [reference(*copy.deepcopy(i)) for i in inputs]
    for i, exp in zip(inputs, expected):
        out = candidate(*copy.deepcopy(i))
        {special}
        if atol == 0 and floats(exp):
            atol = 1e-6
        if out == exp:
            continue
        assert atol != 0 and type(out) is type(exp) and close(out, exp, atol), (i, out, exp)
"""

ROOT = "assert abs(sum(c * math.pow(out, k) for k, c in enumerate(i[0]))) <= atol; continue"
AS_SETS = "assert set(out) == set(exp), (i, out, exp); continue"
NOT_NONE = (
    "assert (out if isinstance(out, bool) else out is not None) == (exp is not None), (i, out, exp)"
    "; continue"
)
PYRAMID = (
    "if abs(out - round(i[0]**2 + 2 * i[0] * math.sqrt((i[0] / 2)**2 + i[1]**2))) <= atol: continue"
)
DIGITS = (
    "width = max(len(str(n)) for n in i); "
    "pair = [str(n).zfill(width) for n in i]; "
    "other = sum(abs(int(a) - int(b)) for a, b in zip(*pair)); "
    "exp = out if out == other else exp"
)
SPECIAL = {
    "find_zero": ROOT,
    **dict.fromkeys(
        (
            *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly"),
            *("larg_nnum", "intersection_array", "find_dissimilar", "Diff"),
        ),
        AS_SETS,
    ),
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), NOT_NONE),
    "are_equivalent": "continue",
    "sum_div": "if out == 0: continue",
    "surface_Area": PYRAMID,
    "digit_distance_nums": DIGITS,
}
"""By function: what EvalPlus accepts in the place of, or beside, an equal answer."""

PAIRS = "[[tuple(b) for b in a] for a in i]"
TYPED = {
    **dict.fromkeys(
        (
            *(2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616),
            *(630, 726, 740, 744, 809),
        ),
        "[tuple(a) for a in i]",
    ),
    **dict.fromkeys((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), PAIRS),
    **dict.fromkeys((75, 413, 444, 753), "[[tuple(a) for a in i[0]], i[1]]"),
    **dict.fromkeys((106, 750), "[i[0], tuple(i[1])]"),
    115: "[[set(a) if isinstance(a, list) and a else {} for a in i[0]]]",
    124: "(float(i[0]), complex(i[1]))",
    **dict.fromkeys((250, 405, 446, 617, 720, 763, 808), "[tuple(i[0]), i[1]]"),
    **dict.fromkeys((259, 401, 445), "[tuple(map(tuple, a)) for a in i]"),
    278: "[tuple(tuple(b) if isinstance(b, list) else b for b in i[0])]",
    307: "[tuple(i[0]), i[1], i[2]]",
    722: "[{k: tuple(v) for k, v in i[0].items()}, *i[1:]]",
    252: "[complex(i[0])]",
    **dict.fromkeys((580, 615, 791), "[tuples(a) for a in i]"),
}
"""By MBPP task: its input with the types that JSON has not, out of `i` as JSON has it."""


def humaneval_plus(rows: Iterable[Row], style: Style) -> Iterator[Problem]:
    """The problems of HumanEvalPlus.jsonl."""
    for row in rows:
        solution = row["prompt"] + row["canonical_solution"]
        yield _problem(row, style, solution, "i", HUMANEVAL_STOP)


def mbpp_plus(rows: Iterable[Row], style: Style) -> Iterator[Problem]:
    """The problems of MbppPlus.jsonl, whose prompt is a docstring that shows one test."""
    for row in rows:
        typed = TYPED.get(int(row["task_id"].rpartition("/")[2]), "i")
        yield _problem(row, style, row["canonical_solution"], typed, MBPP_STOP)


def _problem(row: Row, style: Style, solution: str, typed: str, stop: list[str]) -> Problem:
    name, prompt = row["entry_point"], row["prompt"].strip() + "\n"
    return Problem.model_validate(
        {
            "problem_id": row["task_id"],
            **(evalplus_chat(prompt) if style == INSTRUCT else {"prefix": prompt, "stop": stop}),
            "judge": "function",
            "test_code": CHECK.format(
                solution=solution,
                name=name,
                typed=typed,
                inputs=json.dumps([*row["base_input"], *row["plus_input"]]),
                atol=row["atol"],
                relative=RELATIVE,
                special=SPECIAL.get(name, "pass"),
            ),
            "entry_point": name,
            "limits": LIMITS,
            "reference": {"python": solution},
        }
    )
