"""Rows that hold a task of a benchmark: its prompt by 8-grams of words, or its solution.

As in PaLM (Chowdhery et al. 2022, section 8) a task is known to a row that holds 70% of the 8-grams
of its prompt; unlike there, one row must hold them. As in GPT-3 (Brown et al. 2020, appendix C)
n-grams that more than ten texts share are not looked at: of one benchmark's prompts, here, so that
what they say of the form of an answer makes no row suspect. A solution is known where the row's
code is the same but for comments, white space and Python's docstrings; one shorter than
`LEAST_CODE` or `LEAST_BRACED` may be anybody's.

A prompt of fewer than eight words of its own is compared by its solution alone. A task that is
told in other words and solved by another program is not found.
"""

import ast
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from haloforge.data.normalise import normalise
from haloforge.data.validate.words import I64, U64, Hashed, grams, words
from haloforge.schema import UNPARSED
from haloforge.verify.extract import BRACES
from haloforge.verify.toolchains import language_of

GRAM = 8  # words
SHARED_BY = 10
OVERLAP = 0.7
"""The share of a prompt's 8-grams that makes a row suspect, where nothing else is asked for."""
LEAST_CODE = 80  # characters
LEAST_BRACED = 140
"""As LEAST_CODE, in languages with braces: includes, `main` and `return` alone are 80 characters of
C++, and a program that reads two strings and joins them, which may be anybody's, has 123. Of the
bundled problems none two share a longer one."""
_DOCSTRING = re.compile(r"(?:\A|:[^\n]*\n)\s*(?:#[^\n]*\s+)*[rRuU]?[\"']")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Task(NamedTuple):
    """A problem of a benchmark: its id, what it asks, and its solutions by language."""

    name: str
    prompt: str
    solutions: Mapping[str, str]


@dataclass(frozen=True)
class Index:
    """What is looked for: `grams`, sorted, of which the one at `place` is in the tasks
    `tasks[begins[place] : begins[place + 1]]`; `totals` has the number of grams of each task;
    `solutions` maps forms of code to tasks. `names` are those of the tasks, of which `benchmarks`
    says where each is from."""

    names: list[str]
    benchmarks: list[str]
    grams: U64
    begins: I64
    tasks: I64
    totals: I64
    solutions: dict[int, int]

    def by_prompt(self, found: Hashed, overlap: float) -> dict[int, tuple[int, float]]:
        """By the text that has the 8-grams `found`: the task that it holds most of, and what share
        of its 8-grams, where that is at or above `overlap`."""
        if not len(self.grams) or not len(found.values):
            return {}
        places = np.minimum(np.searchsorted(self.grams, found.values), len(self.grams) - 1)
        hit = self.grams[places] == found.values
        pairs = np.unique(np.stack([found.owners[hit], places[hit]]), axis=1)
        owners, places = pairs[0], pairs[1]
        counts = self.begins[places + 1] - self.begins[places]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        tasks = self.tasks[np.repeat(self.begins[places], counts) + within]
        keys, held = np.unique(
            np.repeat(owners, counts) * len(self.totals) + tasks, return_counts=True
        )
        shares = held / self.totals[keys % len(self.totals)]
        best: dict[int, tuple[int, float]] = {}
        for place in np.flatnonzero(shares >= overlap):
            owner, task = divmod(int(keys[place]), len(self.totals))
            if shares[place] > best.get(owner, (0, 0.0))[1]:
                best[owner] = task, float(shares[place])
        return best

    def by_solution(self, solutions: Iterable[tuple[str, str]]) -> int | None:
        """The task that one of these solutions, each with its language, is a solution of."""
        forms = (form for language, code in solutions for form in forms_of(code, language))
        found = map(self.solutions.get, forms)
        return next((task for task in found if task is not None), None)

    def short(self) -> dict[str, int]:
        """How many tasks of each benchmark have too few words to be compared by their prompts."""
        few = [name for name, total in zip(self.benchmarks, self.totals, strict=True) if not total]
        return {name: few.count(name) for name in dict.fromkeys(self.benchmarks)}


def index_of(benchmarks: Mapping[str, Sequence[Task]]) -> Index:
    """The index of the tasks of all benchmarks, by the benchmarks' names."""
    names, origins, offset = list[str](), list[str](), 0
    solutions: dict[int, int] = {}
    values, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for benchmark, tasks in benchmarks.items():
        found = grams(words([task.prompt for task in tasks]), GRAM)
        own = np.unique(np.stack([found.values, found.owners.astype(np.uint64)]), axis=1)
        _, inverse, counts = np.unique(own[0], return_inverse=True, return_counts=True)
        telling = own[:, counts[inverse] <= SHARED_BY]
        values.append(telling[0])
        owners.append(telling[1].astype(np.int64) + offset)
        for place, task in enumerate(tasks, offset):
            names.append(task.name)
            origins.append(benchmark)
            for language, code in task.solutions.items():
                for form in forms_of(code, language):
                    solutions.setdefault(form, place)
        offset += len(tasks)
    every, tasks_of = np.concatenate(values), np.concatenate(owners)
    order = np.argsort(every, kind="stable")
    distinct, begins = np.unique(every[order], return_index=True)
    return Index(
        names=names,
        benchmarks=origins,
        grams=distinct,
        begins=np.append(begins, len(every)),
        tasks=tasks_of[order],
        totals=np.bincount(tasks_of, minlength=offset),
        solutions=solutions,
    )


def forms_of(code: str, language: str | None) -> list[int]:
    """Digests of `code` that comments and white space do not change, of Python with and without its
    docstrings; none for what is too short. A language may be called by a name of its fences."""
    language = language_of(language or "") or language
    forms = [normalise(code, language)]
    if language == "python" and _DOCSTRING.search(code):
        forms.append(normalise(_undocumented(code), language))
    least = LEAST_BRACED if language in BRACES else LEAST_CODE
    return [
        int.from_bytes(blake2b(form.encode(errors="replace"), digest_size=8).digest(), "big")
        for form in dict.fromkeys(forms)
        if len(form) >= least
    ]


def _undocumented(code: str) -> str:
    """Python without its docstrings; as it is where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that are none
            tree = ast.parse(code)
    except UNPARSED:
        return code
    text = code.encode()
    begins = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            found.append((node.body[0], len(node.body) == 1))
    for body, alone in sorted(found, key=lambda each: -each[0].lineno):
        begin = begins[body.lineno - 1] + body.col_offset
        end = begins[(body.end_lineno or body.lineno) - 1] + (body.end_col_offset or 0)
        text = text[:begin] + (b"pass" if alone else b"") + text[end:]
    return text.decode(errors="replace")
