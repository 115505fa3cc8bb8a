"""`data show`: rows as text that no terminal takes for anything else."""

import io
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from haloforge.data.show import Shown, fenced_language, num_tests, row_facts
from haloforge.data.split import Part
from haloforge.report.rows import PLAIN_WIDTH, print_parts, print_shown, visible

HOSTILE = "red \x1b[31m[bold]bell\x07 [/] \x9b2J \u202eback \ud800 :smile:"


def printed(shown: Shown, **options: Any) -> str:
    console = Console(
        file=io.StringIO(), highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH, **options
    )
    print_shown(console, shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(content: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    answer = {"role": "assistant", "content": content}
    return "f.jsonl, line 1", {"messages": [{"role": "user", "content": "Do."}, answer], **fields}


def test_control_characters_are_shown_as_their_escapes() -> None:
    assert visible("a\r\nb\tc") == "a\nb   c"
    assert visible(HOSTILE) == (r"red \x1b[31m[bold]bell\x07 [/] \x9b2J \u202eback \ud800 :smile:")
    assert visible("größer 数 😀") == "größer 数 😀"


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_of_a_row_reaches_the_terminal_but_as_text(terminal: bool) -> None:
    shown = Shown(1, 1)
    tests = [{"stdin": HOSTILE, "stdout": HOSTILE}]
    fields = {"difficulty": HOSTILE, "tests": tests, "problem_id": HOSTILE, "system": HOSTILE}
    shown.rows = [row(f"{HOSTILE}\n```{HOSTILE}\n{HOSTILE}\n```", **fields)]
    shown.names = {"difficulty": Counter([HOSTILE])}
    plain = printed(shown)
    assert "[bold]bell" in plain and ":smile:" in plain
    assert "".join(plain.split("\n")).isprintable()
    coloured = printed(shown, force_terminal=terminal, color_system="standard")
    for dangerous in ("\x07", "\x9b", "\u202e", "\ud800", "\x1b[2J"):
        assert dangerous not in coloured
    coloured.encode()


def test_a_row_is_shown_by_turns_with_code_and_tests_in_short() -> None:
    shown = Shown(1, 1)
    tests = [{"stdin": f"{n}\n", "stdout": "x" * 99} for n in range(5)]
    code = "```python\nprint(1)\n```\nThat is all."
    shown.rows = [row(code, tests=tests, language="python", reference={"python": "SECRET"})]
    lines = printed(shown).split("\n")
    assert lines[:5] == ["== f.jsonl, line 1", "language python", "-- user", "Do.", "-- assistant"]
    assert lines[5:9] == ["```python", "print(1)", "```", "That is all."]
    assert lines[9:13] == [
        "-- 5 tests",
        f"0 -> {'x' * 57}...",
        f"1 -> {'x' * 57}...",
        "... 3 more",
    ]
    assert lines[13] == "-- reference in python"
    coloured = printed(shown, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured and "print" in coloured


def test_long_text_is_cut_and_long_lines_are_not_when_piped() -> None:
    shown = Shown(1, 1)
    shown.rows = [row("\n".join(map(str, range(500))))]
    assert "... 1,720 more characters" in printed(shown)
    shown.rows = [row("word " * 200)]
    assert max(map(len, printed(shown).split("\n"))) >= 999


def test_distributions_are_bars_with_counts() -> None:
    shown = Shown(2_000_000, 10_000)
    shown.numbers = {"tokens": [0, 1, 5, 6, 7, 100]}
    shown.names = {"language": Counter({"python": 30, "cpp": 10}), "licence": Counter()}
    shown.without = Counter({"language": 60, "licence": 100})
    lines = [line.strip() for line in printed(shown).split("\n")]
    assert "Distributions: a random sample of 10,000 of 2,000,000 rows" in lines
    assert f"4-7 {'█' * 40} 3 (50%)" in lines
    assert "64-127 █████████████ 1 (17%)" in lines
    assert "8-15  0 (0%)" in lines
    assert "tokens  least 0, median 6, 95% at most 77, most 100" in lines
    assert f"python {'█' * 20} 30 (30%)" in lines
    assert f"not given {'█' * 40} 100 (100%)" in lines


def test_facts_of_a_row() -> None:
    facts = row_facts(row("```c++\nint main() {}\n```")[1], "f, line 1", None)
    assert facts["language"] == "cpp"
    assert (facts["characters"], facts["tokens"]) == (len("Do.\n```c++\nint main() {}\n```"), None)
    assert (facts["tests"], facts["judge"], facts["licence"]) == (None, None, None)
    problem = {"prompt": "?", "test_code": "assert f(1)\nassert f(2)", "license": "MIT"}
    facts = row_facts(problem, "f, line 1", None)
    assert (facts["tests"], facts["judge"], facts["licence"]) == (2, "function", "MIT")
    assert row_facts({"prompt": "?"}, "f, line 1", None)["judge"] == "compile"
    assert num_tests({"test_code": "fn main() {}"}) == 1
    assert fenced_language("```\nx\n```") is None
    assert fenced_language("```\r\nx\r\n```\r\n") is None
    assert fenced_language("```cpp\r\nx\r\n```\r\n") == "cpp"


def test_parts_are_a_table() -> None:
    names = Counter({"easy": 1200, "hard \x1b\n": 3})
    parts = [Part("train", None, 1203, 900, names), Part("test", None, 0, 0, Counter())]  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH)
    print_parts(console, parts)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().split("\n")[:3] == [
        r"part    rows  problems   easy  hard \x1b\n",
        r"train  1,203       900  1,200            3",
        r"test       0         0      0            0",
    ]
