"""One answer judged by the real verifier, for tests of the judges."""

import copy
import functools
from typing import Any

from haloforge.schema import Problem
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier

SETTINGS = VerifySettings(run_wall_s=4, cache=False)


def verify(code: str, test_code: str, judge: str = "function", **fields: Any) -> dict[str, Any]:
    """The verdict on Python code as the answer to a problem with these tests."""
    return verify_as({"judge": judge, "test_code": test_code, **fields}, code)


def verify_as(fields: dict[str, Any], code: str, sandbox: Sandbox | None = None) -> dict[str, Any]:
    """The verdict on Python code as the answer to a problem with these fields, in `sandbox` or else
    in the best one that there is here."""
    return verify_answer(fields, f"~~~~~python\n{code}\n~~~~~", sandbox)


def verify_answer(
    fields: dict[str, Any], completion: str, sandbox: Sandbox | None = None
) -> dict[str, Any]:
    """As `verify_as`, of all that a model wrote."""
    verifier = copy.copy(one_verifier())
    verifier.problems = {
        "p": Problem.model_validate({"problem_id": "p", "prompt": "?", **fields}),
    }
    verifier.sandbox = sandbox or verifier.sandbox
    return verifier.verify({"sample_id": "s", "problem_id": "p", "completion": completion})


@functools.cache
def one_verifier() -> Verifier:
    """One for all tests, whatever their problem."""
    return Verifier(SETTINGS, {})
