"""CodeContests (Li et al. 2022).

Shape: `deepmind/code_contests` on the hub. Its columns are those of `contest_problem.proto` in
google-deepmind/code_contests; lists of messages come as one struct of lists, and the hub numbers
`source`, `difficulty` and `language` in its own way (dataset card: ATCODER is 5 there, 6 in the
proto). Languages: 1 is Python 2, which no toolchain here runs.
"""

from string import ascii_uppercase
from typing import Any

from haloforge.data.adapters.adapter import (
    Adapted,
    Adapter,
    LeftOut,
    fenced,
    names_in,
    shape,
    turns,
    unix,
)
from haloforge.data.adapters.contest import ContestOptions, distinct, limits, stdio
from haloforge.data.adapters.fields import cases, number, text, texts, unpacked, wrong
from haloforge.data.rows import Row

CONTEST = shape(
    "name description public_tests private_tests generated_tests solutions",
    "source difficulty incorrect_solutions cf_contest_id cf_index cf_points cf_rating cf_tags "
    "is_description_translated untranslated_description time_limit memory_limit_bytes input_file "
    "output_file",
)
LANGUAGES = {2: "cpp", 3: "python", 4: "java"}
SOURCES = {1: "codechef", 2: "codeforces", 3: "hackerearth", 4: "codejam", 5: "atcoder", 6: "aizu"}
DIFFICULTIES = ["", "easy", "medium", "hard", "harder", "hardest", "external"]
"""The first of the hub's names; those after them are the letters of Codeforces, from A."""
MEBIBYTE = 2**20


def adapt(row: Row, options: ContestOptions) -> Adapted:
    """The problem with all its tests, the first solution in each language as its reference, and
    that in the wanted language as the answer."""
    site = SOURCES.get(int(number(row, "source") or 0), "unknown")
    if text(row, "input_file") or text(row, "output_file"):
        reason = LeftOut("it reads or writes files, not standard input")
        return Adapted(reason, reason)
    columns = ("public_tests", "private_tests", "generated_tests")
    tests = distinct([test for name in columns for test in cases(row, name)])
    asked = stdio(text(row, "description"), tests, options.language)
    solutions = _solutions(row)
    code = solutions.get(options.language or "")
    problem: dict[str, Any] = {
        "problem_id": f"code_contests/{site}/{text(row, 'name')}",
        "group": _group(row, site),
        **asked,
        "limits": limits(_seconds(row), (number(row, "memory_limit_bytes") or 0) / MEBIBYTE),
        "reference": solutions,
        "difficulty": _difficulty(row),
        "tags": [site, *(tag for tag in texts(row, "cf_tags") if tag)],
    }
    return Adapted(
        problem if tests else LeftOut("it has no tests"),
        turns(asked["prompt"], fenced(code, options.language))
        if code
        else LeftOut(f"it has no solution in {options.language or 'the language asked for'}"),
        names=names_in(problem),
    )


def _group(row: Row, site: str) -> str:
    """A problem of Codeforces by its number there, by which other sets know it too."""
    contest = int(number(row, "cf_contest_id") or 0)
    if site == "codeforces" and contest:
        return f"codeforces/{contest}/{text(row, 'cf_index')}"
    return f"{site}/{text(row, 'name')}"


def _solutions(row: Row) -> dict[str, str]:
    columns = unpacked(row, "solutions") or {}
    try:
        pairs = list(zip(columns["language"], columns["solution"], strict=True))
    except (KeyError, TypeError, ValueError):
        raise wrong(row, "solutions", "lists 'language' and 'solution' of one length") from None
    first: dict[str, str] = {}
    for language, solution in pairs:
        if language in LANGUAGES and isinstance(solution, str):
            first.setdefault(LANGUAGES[language], unix(solution))
    return first


def _seconds(row: Row) -> float | None:
    limit = unpacked(row, "time_limit")
    if not limit:
        return None
    if not isinstance(limit, dict) or "seconds" not in limit:
        raise wrong(row, "time_limit", "'seconds' and 'nanos'")
    parts = Row(limit, row.place)
    return (number(parts, "seconds") or 0) + (number(parts, "nanos") or 0) / 1e9


def _difficulty(row: Row) -> str | None:
    rating = number(row, "cf_rating")
    if rating:
        return f"{rating:.0f}"
    place = int(number(row, "difficulty") or 0)
    names = [*DIFFICULTIES, *ascii_uppercase]
    if not 0 <= place < len(names):
        raise wrong(row, "difficulty", f"a number below {len(names)}")
    return names[place] or None


CODE_CONTESTS = Adapter(ContestOptions, (CONTEST,), adapt)
