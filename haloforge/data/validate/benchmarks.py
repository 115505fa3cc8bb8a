"""The benchmarks that rows are compared with: those at hand on this machine, and a user's own."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from haloforge.benchmark.problems import read_source
from haloforge.benchmark.suites import PREFIX, SUITES, load_suite
from haloforge.config import Settings
from haloforge.data.problems import STARTER, starter_problems
from haloforge.data.validate.contamination import Task
from haloforge.errors import InputError
from haloforge.schema import Problem

TEST = "test"
BUNDLED = f"{STARTER}/{TEST}"


class AtHand(NamedTuple):
    """The tasks of each benchmark by its name, and why each of the others is not there."""

    tasks: dict[str, list[Task]]
    missing: dict[str, str]


def at_hand(settings: Settings, against: Sequence[str]) -> AtHand:
    """The bundled test split, the suites whose data is on this machine, and the sources `against`:
    JSONL files of problems or of SFT rows.

    Raises InputError for one of `against` that cannot be read.
    """
    bundled = starter_problems(TEST)
    tasks = {BUNDLED: _tasks(bundled)}
    tasks |= {name: _tasks(read_source(name, settings)) for name in against}
    missing = {}
    chosen = settings.benchmark.model_copy(update={"from_date": None, "to_date": None})
    for suite in SUITES.values():
        name = PREFIX + suite.name
        try:
            in_styles = [load_suite(suite, style, chosen).problems for style in suite.styles]
        except InputError as error:
            missing[name] = str(error)
        else:
            # In the style that puts the least around a task: a leak is wrapped in other words.
            tasks[name] = min(map(_tasks, in_styles), key=lambda asked: sum(map(_length, asked)))
    return AtHand(tasks, missing)


def _tasks(problems: Iterable[Problem]) -> list[Task]:
    return [Task(problem.problem_id, asked(problem), problem.reference) for problem in problems]


def _length(task: Task) -> int:
    return len(task.prompt)


def asked(problem: Problem) -> str:
    """What a problem asks, without its system prompt."""
    if problem.prefix is not None:
        return problem.prefix
    return "\n".join(turn["content"] for turn in problem.turns() if turn["role"] != "system")
