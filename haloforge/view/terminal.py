"""`halo-forge samples`: the same in a terminal, which no control sequence of a model reaches."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from haloforge.cli.output import plain
from haloforge.report.hostile import clipped, decoded, telling_line, visible
from haloforge.schema import Outcome
from haloforge.verify.extract import Extracted
from haloforge.view.asked import Asked, Problems
from haloforge.view.code import code_of, excerpt
from haloforge.view.filters import Filter, find
from haloforge.view.index import Index, Table
from haloforge.view.rows import Whole, latest, whole_rows

_CHUNK = 256
_NAME, _SAID = 44, 240
_OUTCOME, _SIZES = 22, (7, 8, 8, 8)
_MOST, _PLAIN = 20_000, 140
_STYLES = {
    Outcome.PASSED: "green",
    Outcome.WRONG_ANSWER: "yellow",
    Outcome.COMPILE_ERROR: "red",
    Outcome.INFRA_ERROR: "bold",
    Outcome.NO_CODE: "dim",
}


def print_samples(run: Path, wanted: Filter, limit: int, full: bool, as_json: bool) -> None:
    """Prints the first `limit` samples of the run in the folder `run` that are wanted. Raises
    InputError where `run` is none, or nothing is called what is asked for."""
    index, problems = Index(run), Problems(run)

    def read(table: Table) -> tuple[Table, int, list[int]]:
        rows = find(table, wanted).rows
        return table, len(rows), rows[:limit].tolist()

    table, total, rows = read(index.table())
    for fault in table.faults:
        click.echo(f"warning: {visible(fault)}", err=True)
    found = _whole(index, table, rows)
    if as_json:
        for whole in found:
            click.echo(json.dumps(plain(_told(whole, problems)), allow_nan=False))
        return
    console = _console()
    if full:
        for whole in found:
            _print_whole(console, whole, problems)
    else:
        _print_lines(console, found, problems, _width(table, rows))
    console.print(Text(f"{len(rows):,} of {total:,} samples", "dim"))


def _console() -> Console:
    """Colours and the terminal's width where it is one, else plain text as wide as its lines."""
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, markup=False, emoji=False, width=_PLAIN, color_system=None)


def _whole(index: Index, table: Table, rows: list[int]) -> Iterator[Whole]:
    """Some hundred at a time. Where a shard was compacted meanwhile they are found again by what
    they are called."""
    for begin in range(0, len(rows), _CHUNK):
        chunk = rows[begin : begin + _CHUNK]

        def read(now: Table, chunk: list[int] = chunk) -> list[Whole]:
            if now is table:
                return whole_rows(now, chunk)
            names = [
                (
                    table.source(row).key,
                    table.name("problem_id", row),
                    int(table.columns["index"][row]),
                )
                for row in chunk
            ]
            again = (now.find(*name) for name in names)
            return whole_rows(now, [row for row in again if row is not None])

        yield from latest(index, read)


def _told(whole: Whole, problems: Problems) -> dict[str, Any]:
    """All of a sample; JSON escapes what is no plain character."""
    asked, code = _asked(whole, problems)
    return {
        "source": whole.source.key,
        "kind": whole.source.kind,
        **whole.sample,
        **whole.verdict,
        "cycle": whole.source.cycle,
        "kept": whole.rank is not None,
        "rank": whole.rank,
        "trained_in": whole.trained_in,
        "prompt": asked.prompt,
        "code": code.code if code else None,
        "code_language": code.language if code else None,
        "invalid_utf8": whole.damaged,
        "faults": [*whole.faults.values()],
    }


def _width(table: Table, rows: list[int]) -> int:
    """That of the longest name, cut as it may be."""
    named = (_name(table.name("problem_id", row), table.columns["index"][row]) for row in rows)
    return min(_NAME, max((name.cell_len for name in named), default=0))


def _print_lines(console: Console, found: Iterable[Whole], problems: Problems, width: int) -> None:
    """Of each sample a line of figures, and below it a little of what it is and was said of it."""
    heads = ("outcome", "reward", "tests", "tokens", "kept", "from")
    console.print(_line(Text("sample"), width, *heads), style="bold", no_wrap=True)
    for whole in found:
        sample, verdict = whole.sample, whole.verdict
        total = verdict["tests_total"]
        figures = _line(
            _name(sample["problem_id"], sample["index"]),
            width,
            visible(verdict["outcome"]),
            f"{verdict['reward']:.3g}",
            f"{verdict['tests_passed']}/{total}" if total else "",
            f"{sample['num_tokens']:,}",
            "" if whole.rank is None else f"{whole.rank + 1:,}",
            whole.source.title,
            style=_STYLES.get(verdict["outcome"], ""),
        )
        console.print(figures, no_wrap=True, overflow="ellipsis")
        _, code = _asked(whole, problems)
        told = "\n".join(whole.faults.values()) or verdict["diagnostics"]
        said = telling_line(told, _SAID)
        # The place may be in another line than the error; what is said of other ends has warnings.
        about = f"{said}\n{told}" if verdict["outcome"] == Outcome.COMPILE_ERROR else said
        for line in excerpt(visible(code.code) if code else "", about):
            console.print(Text(f"    {line}", "dim"), no_wrap=True, overflow="ellipsis")
        if said:
            console.print(Text(f"    {said}"), no_wrap=True, overflow="ellipsis")


def _name(problem: str, index: int) -> Text:
    shown = clipped(visible(problem).replace("\n", " "), _SAID)[0]
    return Text.assemble(shown, (f" #{index}", "dim"))


def _line(name: Text, width: int, outcome: str, *figures: str, style: str = "") -> Text:
    name = name.copy()
    name.truncate(width, overflow="ellipsis", pad=True)
    outcome, source = f"{outcome:<{_OUTCOME}}", figures[-1]
    right = "".join(f"{figure:>{size}}" for figure, size in zip(figures, _SIZES, strict=False))
    return Text.assemble(name, "  ", (outcome, style), right, "  ", (source, "dim"))


def _print_whole(console: Console, whole: Whole, problems: Problems) -> None:
    asked, code = _asked(whole, problems)
    sample, verdict = whole.sample, whole.verdict
    name = f"{visible(sample['problem_id'])} #{sample['index']}"
    console.print(Rule(Text(name, "bold"), align="left"))
    kept = "not kept" if whole.rank is None else f"kept at rank {whole.rank + 1:,}"
    figures = (
        *(whole.source.title, verdict["outcome"], f"reward {verdict['reward']:.3g}"),
        f"{verdict['tests_passed']}/{verdict['tests_total']} tests",
        f"{sample['num_tokens']:,} tokens ({sample['finish_reason']})",
        kept,
        *(verdict["toolchain"] or "no toolchain", verdict["sandbox_tier"], sample["sample_id"]),
    )
    console.print(Text(visible(" · ".join(figures)), "dim"))
    if whole.damaged:
        console.print(Text(f"not valid UTF-8: {', '.join(whole.damaged)}", "yellow"))
    for fault in whole.faults.values():
        console.print(Text(visible(fault), "yellow"))
    prompt = asked.prompt if asked.prompt is not None else f"(not at hand: {asked.why_not})"
    _print_text(console, "Prompt", prompt)
    shown = code.code if code else sample["completion"]
    _print_text(console, "Code" if code else "Answer, in which no code is found", shown)
    _print_text(console, "Diagnostics", verdict["diagnostics"])


def _print_text(console: Console, title: str, text: str) -> None:
    if not text.strip():
        return
    shown, more = clipped(text.strip("\n"), _MOST)
    console.print(Text(title, "bold"))
    console.print(Text(visible(shown)))
    if more:
        console.print(Text(f"{more:,} more characters; --json has all of it", "dim"))


def _asked(whole: Whole, problems: Problems) -> tuple[Asked, Extracted | None]:
    """What was asked, and the code of the answer."""
    asked = problems.find(whole.source, whole.sample["problem_id"])
    verifier = problems.verifier(whole.source)
    return asked, code_of(decoded(whole.raw["completion"]), asked, verifier)
