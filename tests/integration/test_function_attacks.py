"""Solutions that want a pass without solving the task: none gets one.

Each of FOOLS gets one from the judge that people write first, which executes solution and tests in
one namespace and believes the exit status. It runs here too (in a box), to show that the attack is
one.
"""

import pytest

from haloforge.verify.limits import run_limits
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.toolchains import box_python
from tests.attacking import Row
from tests.judging import SETTINGS, verify

NAIVE = """
import sys
namespace = {"__name__": "__main__"}
program = open("solution.py").read() + "\\n" + open("tests.py").read()
exec(compile(program, "program.py", "exec"), namespace)
"""
TESTS = """
import math

EXPECTED = {(1, 2): 3, (40, 2): 42, (-7, 7): 0}

def check(candidate):
    assert candidate(1, 2) == 3
    assert candidate(40, 2) == 42
    for args, total in EXPECTED.items():
        assert candidate(*args) == total

check(add)
"""
EQUAL = """
class Equal{base}:
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
    def __hash__(self):
        return hash(3)
def add(a, b):
    return Equal({value})
"""
# name: (solution, tests)
FOOLS: dict[str, tuple[str, str]] = {
    "an object equal to all": (EQUAL.format(base="", value=""), TESTS),
    "an int equal to all": (EQUAL.format(base="(int)", value="5"), TESTS),
    "a str equal to all": (
        EQUAL.format(base="(str)", value="'5'"),
        "assert add('a', 'b') == 'ab'\nassert add('', '') == ''",
    ),
    "a list equal to all": (
        EQUAL.format(base="(list)", value="[5]"),
        "assert add([1], [2]) == [1, 2]\nassert add([], []) == []",
    ),
    "a dict equal to all": (
        EQUAL.format(base="(dict)", value=""),
        "assert add({1: 2}, {3: 4}) == {1: 2, 3: 4}",
    ),
    "elements equal to all": (
        f"{EQUAL.format(base='', value='')}\none = add\ndef add(a, b):\n    return [one(a, b)]",
        "assert add([1], []) == [1]\nassert add([2], []) == [2]",
    ),
    "a member of all sets": (
        EQUAL.format(base="", value=""),
        "assert add(1, 2) in {3}\nassert add(1, 2) in (3,)",
    ),
    "a float that is near all": (
        "class Near(float):\n    def __sub__(self, other):\n        return 0.0\n"
        "    __rsub__ = __sub__\ndef add(a, b):\n    return Near(9)",
        "assert abs(add(1, 2) - 3.0) < 1e-6\nassert abs(42 - add(40, 2)) < 1e-6",
    ),
    "an object that is near all": (
        "class Near:\n    def __sub__(self, other):\n        return 0.0\n"
        "    __rsub__ = __sub__\n    def __float__(self):\n        return 3.0\n"
        "def add(a, b):\n    return Near()",
        "assert abs(add(1, 2) - 3.0) < 1e-6\nassert abs(42 - add(40, 2)) < 1e-6",
    ),
    "an object beyond all bounds": (
        "class Bound:\n    def __lt__(self, other):\n        return True\n"
        "    __gt__ = __le__ = __ge__ = __lt__\ndef add(a, b):\n    return Bound()",
        "assert 2.99 < add(1, 2) < 3.01",
    ),
    "a container of all": (
        "class All:\n    def __contains__(self, item):\n        return True\n"
        "def add(a, b):\n    return All()",
        "assert 'ab' in add('a', 'b')",
    ),
    "a class that all are instances of": (
        "class Meta(type):\n    def __instancecheck__(cls, other):\n        return True\n"
        "class Any(metaclass=Meta):\n    pass\nimport builtins\nbuiltins.int = Any\n"
        "def add(a, b):\n    return 'no'",
        "assert isinstance(add(1, 2), int)",
    ),
    "walking the frames": (
        "import sys\ndef add(a, b):\n    frame = sys._getframe(1)\n"
        "    while frame:\n        if 'total' in frame.f_locals:\n"
        "            return frame.f_locals['total']\n"
        "        consts = [c for c in frame.f_code.co_consts if type(c) is int]\n"
        "        if (a, b) == (1, 2) and 3 in consts:\n            return 3\n"
        "        if (a, b) == (40, 2) and 42 in consts:\n            return 42\n"
        "        frame = frame.f_back",
        TESTS,
    ),
    "searching all objects": (
        "import gc\ndef add(a, b):\n    for found in gc.get_objects():\n"
        "        if type(found) is dict and (a, b) in found:\n            return found[a, b]",
        TESTS,
    ),
    "the tests' globals": ("def add(a, b):\n    return EXPECTED[a, b]", TESTS),
    "the tests' file": (
        "import glob, re\ndef add(a, b):\n    for name in glob.glob('*.py'):\n"
        "        source = open(name).read()\n"
        "        found = re.search(rf'\\({a}, {b}\\)(?: ==|:) (\\d+)', source)\n"
        "        if found:\n            return int(found[1])",
        TESTS,
    ),
    "the end at import": ("import sys\nsys.exit(0)", TESTS),
    "a hard end at import": ("import os\nos._exit(0)", TESTS),
    "the end in the call": ("import sys\ndef add(a, b):\n    sys.exit(0)", TESTS),
    "a hard end in the call": ("import os\ndef add(a, b):\n    os._exit(0)", TESTS),
    "a hard end at the end": (
        "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b):\n    return 0",
        TESTS,
    ),
    "an exception hook": (
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef add(a, b):\n    return 0",
        TESTS,
    ),
    "a signal handler": (
        "import os, signal\ndef add(a, b):\n    signal.signal(signal.SIGTERM, lambda *a: "
        "os._exit(0))\n    os.kill(os.getpid(), signal.SIGTERM)\n    while True:\n        pass",
        TESTS,
    ),
    "changed builtins": (
        "import builtins\nbuiltins.all = lambda items: True\nbuiltins.abs = lambda x: 0\n"
        "builtins.len = lambda x: 2\nbuiltins.sorted = lambda x: []\ndef add(a, b):\n    return 0",
        "assert all(add(a, 2) == a + 2 for a in range(5))\nassert abs(add(1, 2) - 3) < 1\n"
        "assert sorted([add(1, 2)]) == sorted([3])",
    ),
    "names of builtins": (
        "def all(items):\n    return True\ndef abs(x):\n    return 0\ndef add(a, b):\n    return 0",
        "assert all(add(a, 2) == a + 2 for a in range(5))\nassert abs(add(1, 2) - 3) < 1",
    ),
    "a changed exception": (
        "import builtins\nbuiltins.TypeError = AssertionError\ndef add(a, b):\n    return 0",
        "try:\n    add(1, 'x')\n    assert False, 'no error'\nexcept TypeError:\n    pass",
    ),
    "a changed module": (
        "import math\nmath.isclose = lambda *a, **k: True\ndef add(a, b):\n    return 0",
        "import math\nassert math.isclose(add(1, 2), 3)",
    ),
    "a module of its own": (
        "class math:\n    @staticmethod\n    def isclose(*a, **k):\n        return True\n"
        "def add(a, b):\n    return 0",
        "assert math.isclose(add(1, 2), 3)",
    ),
    "the end of an iteration": (
        "def add(a, b):\n    raise StopIteration",
        "for total, expected in zip(map(add, [1, 40], [2, 2]), [3, 42]):\n"
        "    assert total == expected",
    ),
    "a context that swallows": (
        "class add:\n    def __init__(self, *a):\n        pass\n    def __enter__(self):\n"
        "        return 0\n    def __exit__(self, *a):\n        return True",
        "with add(1, 2) as total:\n    assert total == 3",
    ),
    "a trace that skips": (
        "import sys\ndef trace(frame, event, arg):\n    if frame.f_code.co_name == 'check':\n"
        "        if event == 'exception':\n            import os\n            os._exit(0)\n"
        "    return trace\nsys.settrace(trace)\ndef add(a, b):\n    return 0",
        TESTS,
    ),
    "the tests' globals changed": (
        "def add(a, b):\n    global limit\n    limit = 10 ** 9\n    return 0",
        "limit = 0\nerror = add(1, 2) - 3\nassert abs(error) <= limit",
    ),
}

PLAIN = "its answers cross as plain data, without methods of its own"
HANDLE = "operators of an object of its own are never asked"
APART = "the tests run in a box of their own"
OUTSIDE = "expected values never enter its box"
NO_PROC = "namespaces and Landlock: a box sees no other process"
REPORT = "the tests' box alone reports, each test by itself"
STATUS = "the status alone is no verdict"
LINES = {  # the first and the second against each
    "an object equal to all": (HANDLE, "none"),
    "an int equal to all": (PLAIN, HANDLE),
    "a str equal to all": (PLAIN, HANDLE),
    "a list equal to all": (PLAIN, HANDLE),
    "a dict equal to all": (PLAIN, HANDLE),
    "elements equal to all": (HANDLE, "none"),
    "a member of all sets": (HANDLE, "none"),
    "a float that is near all": (PLAIN, HANDLE),
    "an object that is near all": (HANDLE, "none"),
    "an object beyond all bounds": (HANDLE, "none"),
    "a container of all": (HANDLE, "none"),
    "a class that all are instances of": (APART, "none"),
    "walking the frames": (OUTSIDE, NO_PROC),
    "searching all objects": (OUTSIDE, NO_PROC),
    "the tests' globals": (OUTSIDE, NO_PROC),
    "the tests' file": (OUTSIDE, NO_PROC),
    "the end at import": (REPORT, STATUS),
    "a hard end at import": (REPORT, STATUS),
    "the end in the call": (REPORT, STATUS),
    "a hard end in the call": (REPORT, STATUS),
    "a hard end at the end": (REPORT, STATUS),
    "an exception hook": (REPORT, STATUS),
    "a signal handler": (REPORT, STATUS),
    "changed builtins": (APART, "none"),
    "names of builtins": ("the tests' builtins are never the solution's", "none"),
    "a changed exception": (APART, "none"),
    "a changed module": (APART, "none"),
    "a module of its own": ("the tests' modules are never the solution's", "none"),
    "the end of an iteration": ("a StopIteration that it raises becomes another error", "none"),
    "a context that swallows": ("`with` is never asked of its objects", "none"),
    "a trace that skips": (APART, REPORT),
    "the tests' globals changed": (APART, "none"),
}
TABLE = [Row("function tests", name, *LINES[name]) for name in FOOLS]


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox.probe(SETTINGS)


def fools_the_naive_judge(code: str, tests: str, sandbox: Sandbox) -> bool:
    """Whether the first judge that comes to mind lets `code` pass."""
    files = {
        name: text.encode()
        for name, text in (("solution.py", code), ("tests.py", tests), ("naive.py", NAIVE))
    }
    argv = (box_python(), "-E", "-s", "naive.py")
    return sandbox.run(argv, files, b"", run_limits(SETTINGS)).clean


@pytest.mark.parametrize("name", FOOLS)
def test_fools_the_naive_judge_alone(name: str, sandbox: Sandbox) -> None:
    code, tests = FOOLS[name]
    assert fools_the_naive_judge(code, tests, sandbox)
    verdict = verify(code, tests)
    assert verdict["outcome"] in ("wrong_answer", "runtime_error"), verdict["diagnostics"]


HONEST = """
def add(a, b):
    return {**a, **b} if isinstance(a, dict) else a + b
"""


@pytest.mark.parametrize("name", FOOLS)
def test_an_honest_solution_passes_the_same_tests(name: str) -> None:
    if name == "a context that swallows":
        pytest.skip("a solution's context managers are not for tests to enter")
    verdict = verify(HONEST, FOOLS[name][1])
    assert verdict["outcome"] == "passed", verdict["diagnostics"]


AS_PYTEST = (
    *("an object equal to all", "an int equal to all", "walking the frames", "changed builtins"),
    *("the end in the call", "a hard end in the call", "names of builtins", "a changed module"),
)


@pytest.mark.parametrize("name", AS_PYTEST)
def test_nor_does_it_pass_as_a_pytest_file(name: str) -> None:
    code, tests = FOOLS[name]
    body = "".join(f"    {line}\n" for line in tests.splitlines())
    verdict = verify(code, f"from solution import *\ndef test_all():\n{body}", "pytest")
    assert verdict["outcome"] in ("wrong_answer", "runtime_error"), verdict["diagnostics"]


SEARCH = """
import gc, os, sys
def add(a, b):
    found = []
    token = bytes(reversed(b"nekot-a-dna-1937"))
    def look(what, data):
        if token in data:
            found.append(what)
    look("the environment", repr(dict(os.environ)).encode())
    look("the arguments", repr(sys.orig_argv).encode())
    for root in (".", "/box", "/tmp", "/run", "/proc/self", "/dev/shm"):
        for folder, _, names in os.walk(root):
            for name in names:
                try:
                    look(name, open(f"{folder}/{name}", "rb").read(1 << 20))
                except OSError:
                    pass
    gc.unfreeze()  # what was there before the box
    for item in gc.get_objects():
        if type(item) in (list, tuple, dict, set):
            look("memory", repr(item)[:1 << 16].encode(errors="replace"))
    return found
"""


def test_nothing_expected_is_in_the_solution_s_box(sandbox: Sandbox) -> None:
    tests = "SECRET = ['7391-and-a-token']\nassert add(1, 2)"
    assert fools_the_naive_judge(SEARCH, tests, sandbox)  # there the search finds it
    verdict = verify(SEARCH, f"{tests} == []")
    assert verdict["outcome"] == "passed", verdict["diagnostics"]
