"""What a benchmark measures on: any source of problems, or a suite asked as its authors do."""

from typing import Any, NamedTuple

from haloforge.benchmark.suites import BASE, INSTRUCT, Style, load_suite, suite_of
from haloforge.config import Settings
from haloforge.data.problems import choose_problems, read_problems
from haloforge.schema import Problem


class Measured(NamedTuple):
    """The problems of a benchmark, how many were left out by name, and the facts of the suite that
    they are from, with the style in which it is asked."""

    problems: list[Problem]
    excluded: int
    suite: dict[str, Any] | None


def problems_to_measure(settings: Settings, chat: bool = True) -> Measured:
    """The problems that `benchmark` in `settings` takes; `chat` says whether the model is asked in
    turns of a conversation, where `benchmark.prompt_style` leaves that open.

    Raises InputError for what is wrong with them.
    """
    chosen = settings.benchmark
    suite = suite_of(chosen.prompts)
    if suite is None:
        return Measured(*choose_problems(chosen, settings.language), None)
    style: Style
    if chosen.prompt_style != "auto":
        style = chosen.prompt_style
    else:
        style = INSTRUCT if chat else BASE
        style = style if style in suite.styles else suite.styles[0]
    found = load_suite(suite, style, chosen)
    return Measured(*choose_problems(chosen, settings.language, found.problems), found.facts)


def read_source(source: str, settings: Settings) -> list[Problem]:
    """All problems of `source`, which may be a suite, for judging samples that are there already:
    those of base models were asked in style `base`, which the settings then have to say."""
    if suite_of(source) is None:
        return read_problems(source, settings.language)
    chosen = settings.benchmark.model_copy(
        update={"prompts": source, "exclude": None, "limit": None, "difficulty": []}
    )
    return problems_to_measure(settings.model_copy(update={"benchmark": chosen})).problems
