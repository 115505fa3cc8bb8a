"""Rows of data as text for the terminal: turns, code, tests, and distributions as bars.

Rows are written by models or by anybody: nothing of them reaches the terminal as a control
sequence or as markup.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from haloforge.data.asked import turns_of
from haloforge.data.show import Shown, num_tests
from haloforge.data.split import Part

PLAIN_WIDTH = 100
"""Columns where the output is no terminal, whatever is said of one by the environment."""
_BAR = 40
_SHOWN_NAMES = 10
_TURN_LINES, _TURN_CHARACTERS = 60, 6000
_SHOWN_TESTS, _TEST_CHARACTERS = 2, 60
_BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)(?:^```[ \t]*$|\Z)", re.M | re.S)
_ABOUT = ("problem_id", "group", "language", "difficulty", "license", "source", "judge", "tags")
_STYLES = {"system": "yellow", "user": "cyan", "assistant": "green"}


def rows_console() -> Console:
    """Standard output: colours and the terminal's width where it is one, else plain text."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(
            highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH, color_system=None
        )
    return console


def visible(text: str) -> str:
    """`text` with each character that does not print, but for line ends, as its Python escape."""
    lines = text.replace("\r\n", "\n").expandtabs(4).split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_visible, line)) for line in lines)


def one_line(text: str) -> str:
    """`visible`, with line ends as their escapes as well."""
    return visible(text).replace("\n", "\\n")


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


def print_shown(console: Console, shown: Shown) -> None:
    """The rows, then the distributions of what they and the rest of the sample have."""
    for place, row in shown.rows:
        _print_row(console, place, row)
    few = f"a random sample of {shown.sampled:,} of {shown.total:,} rows"
    _line(console, Text(f"Distributions: {few if shown.sampled < shown.total else 'all rows'}"))
    for name, numbers in shown.numbers.items():
        _print_bars(console, name, _buckets(numbers), shown.without[name], _spread(numbers))
    for name, counts in shown.names.items():
        _print_bars(console, name, _commonest(counts), shown.without[name])


def print_parts(console: Console, parts: Sequence[Part]) -> None:
    """One line a part: its rows, its problems, and its rows by difficulty."""
    totals = sum((part.difficulties for part in parts), Counter())
    named = [name for name, _ in totals.most_common(_SHOWN_NAMES)]
    table = [["part", "rows", "problems", *(one_line(name) for name in named)]]
    for part in parts:
        counts = [part.rows, part.problems, *(part.difficulties[name] for name in named)]
        table.append([part.name, *(f"{count:,}" for count in counts)])
    if others := len(totals) - len(named):
        table[0].append(f"{others} others")
        for line, part in zip(table[1:], parts, strict=True):
            rest = part.rows - sum(part.difficulties[name] for name in named)
            line.append(f"{rest:,}")
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *rest_of_line in table:
        cells = [cell.rjust(width) for cell, width in zip(rest_of_line, widths[1:], strict=True)]
        _line(console, Text("  ".join([first.ljust(widths[0]), *cells])))


def _print_row(console: Console, place: str, row: dict[str, Any]) -> None:
    _line(console, Text(f"== {one_line(place)}", style="bold"))
    about = [f"{name} {visible(_short(row[name]))}" for name in _ABOUT if name in row]
    if about:
        _line(console, Text("   ".join(about), style="dim"))
    turns = turns_of(row, place)
    if isinstance(row.get("system"), str):
        turns = [{"role": "system", "content": row["system"]}, *turns]
    for turn in turns:
        role = "prefix" if "prefix" in row and turn["role"] == "user" else turn["role"]
        _line(console, Text(f"-- {role}", style=_STYLES.get(role, "cyan")))
        _print_content(console, turn["content"], code=role == "prefix")
    if num_tests(row):
        _print_tests(console, row)
    if isinstance(row.get("reference"), dict):
        _line(console, Text(f"-- reference in {', '.join(map(one_line, row['reference']))}"))
    console.print()


def _print_content(console: Console, content: str, code: bool = False) -> None:
    text, rest = _cut(visible(content))
    position = 0
    for block in [] if code else _BLOCK.finditer(text):
        _line(console, Text(text[position : block.start(2)].strip("\n")))
        _line(console, _highlighted(block[2].rstrip("\n"), block[1].strip()))
        position = block.end(2)
    left = text[position:].strip("\n")
    if left:
        _line(console, _highlighted(left, "python") if code else Text(left))
    if rest:
        _line(console, Text(rest, style="dim"))


def _cut(text: str) -> tuple[str, str]:
    """The beginning of a long text, and what is said of the rest."""
    cut = "\n".join(text[:_TURN_CHARACTERS].split("\n")[:_TURN_LINES])
    left = len(text) - len(cut)
    return cut, f"... {left:,} more characters" if left else ""


def _highlighted(code: str, tag: str) -> Text:
    syntax = Syntax("", tag.split()[0] if tag else "text", theme="ansi_dark")
    text = syntax.highlight(code)
    text.rstrip()
    # No background: that of the theme would be drawn to the ends of lines, and nowhere else.
    text.style = ""
    return text


def _print_tests(console: Console, row: dict[str, Any]) -> None:
    number = num_tests(row)
    named = f", entry point {visible(_short(row['entry_point']))}" if "entry_point" in row else ""
    tests = row.get("tests")
    _line(console, Text(f"-- {number:,} test{'s' * (number != 1)}{named}", style="magenta"))
    for test in tests[:_SHOWN_TESTS] if isinstance(tests, list) else []:
        sides = [_short(test.get(side, "")) if isinstance(test, dict) else "?" for side in _SIDES]
        _line(console, Text(f"{visible(sides[0])} -> {visible(sides[1])}"))
    if not tests:
        lines = str(row["test_code"]).strip().split("\n")
        _line(console, _highlighted(visible("\n".join(lines[:6])), "python"))
        number, shown = len(lines), 6
        if number > shown:
            _line(console, Text(f"... {number - shown:,} more lines", style="dim"))
    elif number > _SHOWN_TESTS:
        _line(console, Text(f"... {number - _SHOWN_TESTS:,} more", style="dim"))


_SIDES = ("stdin", "stdout")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    one_line = text.rstrip("\n").replace("\n", "\\n")
    if len(one_line) <= _TEST_CHARACTERS:
        return one_line
    return f"{one_line[: _TEST_CHARACTERS - 3]}..."


def _buckets(numbers: Sequence[int]) -> list[tuple[str, int]]:
    """Counts by powers of two, without a gap: tokens and tests spread over many of them."""
    if not numbers:
        return []
    bits = Counter(number.bit_length() for number in numbers)
    return [(_range(bit), bits[bit]) for bit in range(min(bits), max(bits) + 1)]


def _range(bits: int) -> str:
    if bits < 2:
        return str(bits)
    return f"{2 ** (bits - 1):,}-{2**bits - 1:,}"


def _spread(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    low, middle, high, most = np.percentile(numbers, [0, 50, 95, 100])
    return f"least {low:,.0f}, median {middle:,.0f}, 95% at most {high:,.0f}, most {most:,.0f}"


def _commonest(counts: Counter[str]) -> list[tuple[str, int]]:
    named = [(visible(_short(name)), count) for name, count in counts.most_common(_SHOWN_NAMES)]
    others = counts.total() - sum(count for _, count in named)
    return [*named, (f"{len(counts) - len(named):,} others", others)] if others else named


def _print_bars(
    console: Console, name: str, bars: Iterable[tuple[str, int]], without: int, more: str = ""
) -> None:
    lines = list(bars)
    _line(console, Text("\n" + name, style="bold") + Text(f"  {more}" if more else "", "dim"))
    if without:
        lines.append(("not given", without))
    whole = sum(count for _, count in lines)
    most = max((count for _, count in lines), default=1)
    width = max((len(label) for label, _ in lines), default=0)
    mark = "█" if console.encoding.startswith("utf") else "#"
    for label, count in lines:
        bar = mark * max(1 if count else 0, round(_BAR * count / most))
        _line(
            console,
            Text(f"  {label:>{width}} ")
            + Text(bar, "blue")
            + Text(f" {count:,} ({count / whole:.0%})"),
        )


def _line(console: Console, text: Text) -> None:
    # Where it is piped, a line stays one: whoever reads it may wrap it.
    console.print(text, soft_wrap=not console.is_terminal)
