"""A suite's problems, from its data on this machine."""

from collections.abc import Iterable, Iterator
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from haloforge.benchmark.settings import BenchmarkSettings
from haloforge.benchmark.suites.catalogue import SUITES, Suite
from haloforge.benchmark.suites.rows import Reader, find, in_package
from haloforge.data.jsonl import first_fault
from haloforge.data.rows import Row
from haloforge.data.suites.style import Style
from haloforge.errors import InputError
from haloforge.schema import Problem
from haloforge.store.cache import cache_folder

PREFIX = "suite/"
"""Before a suite's name, where a source of problems is asked for."""


class SuiteProblems(NamedTuple):
    """A suite's problems, and what a result says of it."""

    problems: list[Problem]
    facts: dict[str, str | None]


def suite_of(source: str) -> Suite | None:
    """The suite that a source of problems such as `suite/humaneval` names; None for other sources.

    Raises InputError for an unknown name.
    """
    return suite_named(source.removeprefix(PREFIX)) if source.startswith(PREFIX) else None


def suite_named(name: str) -> Suite:
    """The suite called `name`. Raises InputError with the nearest name where there is none."""
    if name not in SUITES:
        nearest = get_close_matches(name, SUITES, 1, cutoff=0)[0]
        raise InputError(
            f"unknown suite '{name}'; did you mean '{nearest}'? Known: {', '.join(SUITES)}"
        )
    return SUITES[name]


def load_suite(suite: Suite, style: Style, chosen: BenchmarkSettings) -> SuiteProblems:
    """The problems of `suite`, asked in `style`, of the days that `chosen` takes.

    Raises InputError for data that is not here, and says what to fetch; that is not of the
    suite's version, or that cannot be read; for a style that the suite is not asked in, and for
    days where it has none.
    """
    reader = _reader(suite, style, chosen)
    problems = list(_problems(reader, suite, style, chosen))
    described = {
        problem.problem_id: problem.model_copy(
            update={"source": suite.title, "license": suite.licence}
        )
        for problem in problems
    }
    days = {"from_date": chosen.from_date, "to_date": chosen.to_date} if suite.date_field else {}
    return SuiteProblems(
        list(described.values()),
        {
            "name": suite.name,
            "title": suite.title,
            "version": suite.version,
            "licence": suite.licence,
            "origin": suite.origin,
            "sha256": reader.sha256,
            "prompt_style": style,
            **{name: day.isoformat() if day else None for name, day in days.items()},
        },
    )


def each_problem(suite: Suite, style: Style, chosen: BenchmarkSettings) -> Iterator[Problem]:
    """The problems of `load_suite` one after another, none held. Raises the same; that the data is
    of another version is known at its end."""
    yield from _problems(_reader(suite, style, chosen), suite, style, chosen)


def _reader(suite: Suite, style: Style, chosen: BenchmarkSettings) -> Reader:
    if style not in suite.styles:
        raise InputError(
            f"suite '{suite.name}' is asked in style {' or '.join(suite.styles)} only, not {style}"
        )
    if suite.date_field is None and (chosen.from_date or chosen.to_date):
        raise InputError(f"suite '{suite.name}' has no dates: leave out from_date and to_date")
    return Reader(_files(suite, chosen))


def _problems(
    reader: Reader, suite: Suite, style: Style, chosen: BenchmarkSettings
) -> Iterator[Problem]:
    some = False
    try:
        for problem in suite.adapt(_dated(reader, suite, chosen), style):
            some = True
            yield problem
    except ValidationError as error:
        raise InputError(f"suite '{suite.name}': {first_fault(error)}") from None
    if suite.sha256 is not None and reader.sha256 != suite.sha256:
        raise InputError(
            f"suite '{suite.name}': the data in {_files(suite, chosen)[0]} is not that of version "
            f"{suite.version} (sha256 {reader.sha256}, expected {suite.sha256}); get it from "
            f"{suite.origin}"
        )
    if not some:
        raise InputError(f"suite '{suite.name}': no problem there, or none of these dates")


def _files(suite: Suite, chosen: BenchmarkSettings) -> list[Path]:
    """The files that hold the suite: those of its package, or a local copy."""
    root = Path(chosen.data_dir).expanduser() if chosen.data_dir else cache_folder() / "suites"
    folders = [root / suite.name, *([root] if chosen.data_dir else [])]
    found = find(folders, suite.files)
    if not found and suite.package:
        found = in_package(suite.package, f"data/{suite.files[0]}.gz")
    if not found:
        raise InputError(
            f"suite '{suite.name}' is not at hand: fetch {' or '.join(suite.files)} "
            f"({suite.licence}) from {suite.origin} into {folders[0]}, or name its folder with "
            "--data (benchmark.data_dir)"
        )
    return found


def _dated(rows: Iterable[Row], suite: Suite, chosen: BenchmarkSettings) -> Iterator[Row]:
    first, last = chosen.from_date or date.min, chosen.to_date or date.max
    for row in rows:
        if suite.date_field is None:
            yield row
            continue
        try:
            day = date.fromisoformat(row[suite.date_field][:10])
        except (TypeError, ValueError):
            raise InputError(
                f"{row.place}: field '{suite.date_field}': expected a date such as 2024-09-01"
            ) from None
        if first <= day <= last:
            yield row
