"""LiveCodeBench, code generation (Jain et al. 2024), from the hub's `code_generation_lite`."""

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Iterable, Iterator

from haloforge.data.rows import Row
from haloforge.data.suites.style import Style
from haloforge.errors import InputError
from haloforge.schema import Problem

SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and "
    "will generate a correct Python program that matches the specification and passes all tests. "
    "You will NOT return anything except for the program."
)
WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your "
    "code within delimiters."
)
WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly "
    "test on the sample inputs). Enclose your code within delimiters as follows."
)
STARS = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins"),
)
PRELUDE = "".join(
    [
        *(f"from {name} import *\n" for name in (*STARS, "typing")),
        *(f"import {name}\n" for name in STARS if name != "builtins"),
        "sys.setrecursionlimit(50000)\n",
    ]
)
"""The imports that the authors put before every answer."""
RUN_LIMITS = {"wall_s": 6, "memory_mb": 4096}
CALL_LIMITS = {"wall_s": 30, "memory_mb": 4096}
"""The authors give each call 6 s; here all calls of one answer share these."""
CHECKER = """\
from decimal import Decimal, InvalidOperation

def numbers(line):
    try:
        return [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None

def lines(text):
    return [line.strip() for line in text.strip().split("\\n")]

def check(stdin, stdout, expected):
    found, wanted = lines(stdout), lines(expected)
    if len(found) != len(wanted):
        return False
    for one, other in zip(found, wanted):
        if one != other and (numbers(one) is None or numbers(one) != numbers(other)):
            return False
    return True
"""
CALLS = """\
import json
cases = json.loads({cases!r})

def check(candidate):
    method = getattr(candidate(), {name!r})
    for given, wanted in cases:
        expected = json.loads(wanted)
        found = method(*[json.loads(line) for line in given.split("\\n")])
        found = list(found) if isinstance(found, tuple) else found
        assert found == expected, (given, found, expected)
"""


def livecodebench(rows: Iterable[Row], style: Style) -> Iterator[Problem]:
    """The questions, with their public and hidden tests: of standard input, or calls of a method of
    the answer's class `Solution`. Lines of output are compared as text, else as decimals."""
    for row in rows:
        cases = [(test["input"], test["output"]) for test in _tests(row)]
        name = json.loads(row["metadata"]).get("func_name")
        if name is None:
            tests = [{"stdin": given, "stdout": wanted} for given, wanted in cases]
            judged = {"judge": "stdio", "tests": tests, "checker": CHECKER, "limits": RUN_LIMITS}
        else:
            code = CALLS.format(cases=json.dumps(cases), name=name)
            judged = {"judge": "function", "test_code": code, "entry_point": "Solution"}
            judged["limits"] = CALL_LIMITS
        yield Problem.model_validate(
            {
                "problem_id": f"livecodebench/{row['question_id']}",
                "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": _question(row)},
                ],
                "language": "python",
                "prelude": PRELUDE,
                "difficulty": row["difficulty"],
                "tags": [row["platform"]],
                **judged,
            }
        )


def _question(row: Row) -> str:
    """The authors' generic prompt, for chat models."""
    starter = row["starter_code"]
    return (
        f"### Question:\n{row['question_content']}\n\n"
        f"### Format: {WITH_STARTER if starter else WITHOUT_STARTER}\n"
        f"```python\n{starter or '# YOUR CODE HERE'}\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )


def _tests(row: Row) -> list[dict[str, str]]:
    try:
        public = json.loads(row["public_test_cases"])
        return [*public, *unpacked(row["private_test_cases"])]
    except ValueError as error:
        raise InputError(f"{row.place}: tests that cannot be read ({error})") from None


TEXT = {"UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"}
AROUND = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}
"""What stands around the text in a pickle of one text, and does nothing to it."""


def unpacked(text: str) -> list[dict[str, str]]:
    """Hidden tests: JSON, or JSON that was pickled as text, compressed and written in base 64.

    Raises ValueError for anything else.
    """
    try:
        tests: list[dict[str, str]] = json.loads(text)
    except ValueError:
        return _unpickled(text)
    return tests


def _unpickled(text: str) -> list[dict[str, str]]:
    try:
        packed = zlib.decompress(base64.b64decode(text))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"neither JSON nor packed JSON: {error}") from None
    tests: list[dict[str, str]] = json.loads(_pickled_text(packed))
    return tests


def _pickled_text(packed: bytes) -> str:
    """The text in a pickle that holds one and nothing else. It is read, never run."""
    texts = []
    for opcode, operand, _ in pickletools.genops(packed):
        if opcode.name in TEXT:
            texts.append(operand)
        elif opcode.name not in AROUND:
            raise ValueError(f"a pickle of more than text (opcode {opcode.name})")
    if len(texts) != 1:
        raise ValueError(f"a pickle of {len(texts)} texts, not of one")
    return str(texts[0])
