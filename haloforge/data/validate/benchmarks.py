"""The benchmarks that rows are compared with: those at hand on this machine, and a user's own."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from haloforge.benchmark.problems import read_source
from haloforge.benchmark.suites import PREFIX, SUITES, each_problem, suite_of
from haloforge.config import Settings
from haloforge.data.asked import turns_of
from haloforge.data.jsonl import read_jsonl
from haloforge.data.problems import STARTER, parse_problem, starter_problems
from haloforge.data.prompts import asked_row
from haloforge.data.validate.contamination import Task
from haloforge.errors import InputError
from haloforge.schema import Problem
from haloforge.verify.extract import extract

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
    tasks |= {name: _given(name, settings) for name in against}
    missing = {}
    chosen = settings.benchmark.model_copy(update={"from_date": None, "to_date": None})
    for suite in SUITES.values():
        name = PREFIX + suite.name
        try:
            # In the style that puts the least around a task: a leak is wrapped in other words.
            # One style at a time, and of a problem no more than its task: tests are gigabytes.
            tasks[name] = min(
                (_tasks(each_problem(suite, style, chosen)) for style in suite.styles),
                key=lambda asked: sum(map(_length, asked)),
            )
        except InputError as error:
            missing[name] = str(error)
    return AtHand(tasks, missing)


def _tasks(problems: Iterable[Problem]) -> list[Task]:
    return [Task(problem.problem_id, asked(problem), problem.reference) for problem in problems]


def _given(source: str, settings: Settings) -> list[Task]:
    """The tasks of a source of the user's; what an SFT row answers is a solution."""
    if suite_of(source) is not None or not Path(source).exists():
        return _tasks(read_source(source, settings))
    path, tasks = Path(source), []
    for number, row in read_jsonl(path):
        place = f"{path}, line {number}"
        problem = parse_problem(asked_row(row, place), place)
        last = turns_of(row, place)[-1]
        answer = extract(last["content"], None) if last["role"] == "assistant" else None
        answered = {answer.language or "": answer.code} if answer else {}
        tasks.append(Task(problem.problem_id, asked(problem), problem.reference | answered))
    return tasks


def _length(task: Task) -> int:
    return len(task.prompt)


def asked(problem: Problem) -> str:
    """What a problem asks, without its system prompt."""
    if problem.prefix is not None:
        return problem.prefix
    return "\n".join(turn["content"] for turn in problem.turns() if turn["role"] != "system")
