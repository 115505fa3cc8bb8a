"""A problem's own checker: Python that says whether an output is right, where many are."""

import json
from collections.abc import Sequence

from haloforge.errors import AT_FAULT, ProblemFaultError
from haloforge.schema import Limits, Test
from haloforge.verify.judges.judgement import last_words
from haloforge.verify.limits import run_limits
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import PYTHON

WALL_S = 10
SCRIPT = """
import json, os, sys
result = os.dup(1)
os.dup2(2, 1)
checker = {"__name__": "checker"}
with open("checker.py", encoding="utf-8") as file:
    exec(compile(file.read(), "checker.py", "exec"), checker)
def check(*test):
    right = checker["check"](*test)
    if not isinstance(right, bool):
        raise TypeError(f"check returned {right!r:.50}, not True or False")
    return right
for stdin, stdout, expected in json.load(sys.stdin):
    try:
        right = check(stdin, stdout, expected)
    except Exception as error:
        try:
            check(stdin, expected, expected)
        except Exception:
            raise error
        right = False
    os.write(result, b"1" if right else b"0")
"""


def run_checker(
    checker: str, runs: Sequence[tuple[Test, bytes]], sandbox: Sandbox, settings: VerifySettings
) -> list[bool]:
    """What `check(stdin, stdout, expected)` says of each test and what was printed for it.

    All in one box, apart from the program's; bytes that are no UTF-8 come as U+FFFD. A checker that
    raises where it does not for the expected output in the printed one's place fails for what was
    printed, which is wrong then. Raises ProblemFaultError for all other failures of a
    checker.
    """
    rows = [(test.stdin, out.decode(errors="replace"), test.stdout) for test, out in runs]
    result = sandbox.run(
        (*PYTHON, "-c", SCRIPT),
        {"checker.py": checker.encode()},
        json.dumps(rows).encode(),
        run_limits(settings, Limits(wall_s=WALL_S)),
    )
    if not result.clean or len(result.stdout) != len(rows):
        raise ProblemFaultError(f"{AT_FAULT}checker {last_words(result)}")
    return [answer == ord("1") for answer in result.stdout]
