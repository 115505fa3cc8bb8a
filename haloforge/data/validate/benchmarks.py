"""The benchmarks that rows are compared with: those at hand on this machine, and a user's own."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from haloforge.benchmark.problems import read_source
from haloforge.benchmark.suites import PREFIX, SUITES, load_suite
from haloforge.config import Settings
from haloforge.data.problems import STARTER
from haloforge.data.validate.contamination import Task
from haloforge.errors import InputError
from haloforge.schema import Problem

BUNDLED = f"{STARTER}/test"


class AtHand(NamedTuple):
    """The tasks of each benchmark by its name, and why each of the others is not there."""

    tasks: dict[str, list[Task]]
    missing: dict[str, str]


def at_hand(settings: Settings, against: Sequence[str]) -> AtHand:
    """The bundled test split, the suites whose data is on this machine, and the sources `against`:
    JSONL files of problems or of SFT rows.

    Raises InputError for one of `against` that cannot be read.
    """
    tasks = {name: _tasks(read_source(name, settings)) for name in (BUNDLED, *against)}
    missing = {}
    for suite in SUITES.values():
        name = PREFIX + suite.name
        try:
            # Any style will do: instructions that are put around a task are in every prompt, and
            # what many prompts share is not looked at.
            found = load_suite(suite, suite.styles[0], settings.benchmark)
        except InputError as error:
            missing[name] = str(error)
        else:
            tasks[name] = _tasks(found.problems)
    return AtHand(tasks, missing)


def _tasks(problems: Iterable[Problem]) -> list[Task]:
    return [Task(problem.problem_id, asked(problem), problem.reference) for problem in problems]


def asked(problem: Problem) -> str:
    """What a problem asks, without its system prompt."""
    if problem.prefix is not None:
        return problem.prefix
    return "\n".join(turn["content"] for turn in problem.turns() if turn["role"] != "system")
