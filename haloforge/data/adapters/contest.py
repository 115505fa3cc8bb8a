"""What problems of programming contests have in common, whatever set tells them."""

import json
from typing import Any

from haloforge.data.adapters.adapter import LanguageName, Options
from haloforge.data.adapters.fields import Tests
from haloforge.data.problems import asked_in
from haloforge.schema import digest

SMALLEST_MB = 64
"""Some contests allow less, which a box with an interpreter or a big standard library needs."""


class ContestOptions(Options):
    """`language` is the one that answers are asked for; null leaves that to who asks."""

    language: LanguageName | None = None


def stdio(question: str, tests: Tests, language: str | None) -> dict[str, Any]:
    """The fields of a problem that is judged by what a program prints.

    Words are compared one by one, and numbers with a fraction within 1e-6, as contests do.
    """
    prompt = question if language is None else asked_in(question, language)
    judged = {"judge": "stdio", "tests": tests, "comparison": "float"}
    return {"prompt": prompt, "language": language, **judged}


def distinct(tests: Tests) -> Tests:
    """Each test once, in its first place: sets repeat those of the statement among the others."""
    first: dict[str, dict[str, str]] = {}
    for test in tests:
        first.setdefault(digest(*test.values()), test)
    return list(first.values())


def limits(seconds: float | None, megabytes: float | None) -> dict[str, Any]:
    """A contest's limits: its time is that of the processor; the wall clock has twice as much and a
    second, since other work goes on beside."""
    found: dict[str, Any] = {}
    if seconds is not None and seconds > 0:
        found = {"cpu_s": seconds, "wall_s": 2 * seconds + 1}
    if megabytes:
        found["memory_mb"] = max(int(megabytes), SMALLEST_MB)
    return found


CHECKER = """\
import contextlib, io, sys

SOURCE = {source}

def check(stdin, stdout, expected):
    held = (("input.txt", stdin), ("correct_output.txt", expected), ("solution_output.txt", stdout))
    for name, text in held:
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
    sys.argv = ["checker.py", *(name for name, _ in held)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        exec(compile(SOURCE, "checker.py", "exec"), {{"__name__": "__main__"}})
    return printed.getvalue().strip() == "1"
"""


def checker_script(source: str) -> str:
    """A problem's checker out of one that is a program: it is given the names of three files (what
    was read, what is right, what was printed) and prints 1 for what is right."""
    return CHECKER.format(source=json.dumps(source))
