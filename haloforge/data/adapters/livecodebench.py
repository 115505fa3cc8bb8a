"""LiveCodeBench, code generation (Jain et al. 2024).

Shape: that of `livecodebench/code_generation_lite`, by the class `CodeGenerationProblem` in the
authors' `lcb_runner/benchmarks/code_generation.py`. Hidden tests are JSON, or JSON that was pickled
as text, compressed and written in base 64: that text is read out of the pickle, which is not run.
"""

import json

from pydantic import ValidationError

from haloforge.data.adapters.adapter import Adapted, Adapter, LeftOut, Options, shape
from haloforge.data.adapters.fields import text
from haloforge.data.jsonl import first_fault
from haloforge.data.rows import Row
from haloforge.data.showing import hidden_names
from haloforge.data.suites.livecodebench import livecodebench
from haloforge.data.suites.style import INSTRUCT
from haloforge.errors import InputError

QUESTION = shape(
    "question_content platform question_id contest_date starter_code difficulty "
    "public_test_cases private_test_cases metadata",
    "question_title contest_id",
)
NO_SOLUTIONS = LeftOut("the set holds no solutions")


def adapt(row: Row, options: Options) -> Adapted:
    """The question with its public and hidden tests, left out where those cannot be read."""
    try:
        [problem] = livecodebench([row], INSTRUCT)
    except ValidationError as error:
        return Adapted(LeftOut(first_fault(error)), NO_SOLUTIONS, "test")
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).removeprefix(f"{row.place}: ")
        return Adapted(LeftOut(reason), NO_SOLUTIONS, "test")
    method = json.loads(row["metadata"]).get("func_name")
    if method and hidden_names(text(row, "starter_code"), ["Solution", method]):
        return Adapted(LeftOut(f"its starter code hides '{method}'"), NO_SOLUTIONS, "test")
    fields = problem.model_dump(exclude_defaults=True)
    return Adapted({**fields, "group": problem.problem_id}, NO_SOLUTIONS, "test")


LIVECODEBENCH = Adapter(Options, (QUESTION,), adapt)
