"""HumanEval (Chen et al. 2021): base models are asked as in its paper, others as in EvalPlus."""

import ast
from collections.abc import Iterable, Iterator

from haloforge.data.rows import Row
from haloforge.data.suites.style import INSTRUCT, Style
from haloforge.schema import Problem

STOP = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]
"""Where a completion ends, as the paper has it (section 2.1)."""
INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a "
    "markdown code block:\n```\n{prompt}\n```\n"
)
RESPONSE = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n"
)


def evalplus_chat(prompt: str) -> dict[str, str]:
    """How EvalPlus (Liu et al. 2023, release 0.3.1) puts code to be completed to a chat model."""
    return {"prompt": INSTRUCTION.format(prompt=prompt.strip()), "answer_start": RESPONSE}


def with_helpers(row: Row) -> str:
    """The tests, with what they use of the prompt: taken from an answer, a helper that always gives
    0 would pass tests that ask it about the result.
    """
    helpers = [
        ast.unparse(node)
        for node in ast.parse(row["prompt"]).body
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)
        and getattr(node, "name", "") != row["entry_point"]
    ]
    return "\n\n".join([*helpers, row["test"]])


def humaneval(rows: Iterable[Row], style: Style) -> Iterator[Problem]:
    """The problems, each with its `check(candidate)`. Base models are given the prompt as it stands
    and end at `STOP`."""
    for row in rows:
        chat = evalplus_chat(row["prompt"])
        yield Problem.model_validate(
            {
                "problem_id": row["task_id"],
                **(chat if style == INSTRUCT else {"prefix": row["prompt"], "stop": STOP}),
                "judge": "function",
                "test_code": with_helpers(row),
                "entry_point": row["entry_point"],
                "reference": {"python": row["prompt"] + row["canonical_solution"]},
            }
        )
