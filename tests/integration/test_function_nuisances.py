"""Solutions that aim at the protocol between the two boxes, or only want to do harm."""

import time

import pytest

from haloforge.schema import Limits
from tests.judging import verify

CALLS = "def test_all():\n    assert add(1, 2) == 3\n"
FORGE = """
import os
lines = [
    b'["value",3,[],""]', b'["value",true,[],""]', b'["passed"]', b'PASSED', b'1 passed in 0.01s',
    b'{"total":1}', b'{"used":true}', b'{"test":"test_all","outcome":"passed","reason":""}',
    b'{"end":true,"called":true,"alive":true}',
]
"""
NUISANCES = {  # name: (solution, tests)
    "replies made up before": (
        f"{FORGE}\nfor line in lines[:2] * 50:\n    os.write(4, line + b'\\n')\n"
        "def add(a, b):\n    return 0",
        "for a in range(10):\n    assert add(a, 2) == a + 2",
    ),
    "reports made up on every descriptor": (
        f"{FORGE}\nfor fd in range(64):\n    for line in lines[2:]:\n        try:\n"
        "            os.write(fd, line + b'\\n')\n        except OSError:\n            pass\n"
        "def add(a, b):\n    return 0",
        CALLS,
    ),
    "reports made up in the call, then an end": (
        f"{FORGE}\ndef add(a, b):\n    for fd in (1, 2, 4):\n        for line in lines[2:]:\n"
        "            os.write(fd, line + b'\\n')\n    os._exit(0)",
        CALLS,
    ),
    "verdicts printed": (
        'def add(a, b):\n    print(\'{"test":"test_all","outcome":"passed"}\')\n'
        "    print('1 passed')\n    return 0",
        CALLS,
    ),
    "the last word in a thread": (
        f"{FORGE}\nimport threading, time\ndef write():\n    while True:\n"
        "        os.write(4, lines[1] + b'\\n')\n        time.sleep(0.001)\n"
        "threading.Thread(target=write, daemon=True).start()\ndef add(a, b):\n    return 0",
        CALLS,
    ),
    "a closed pipe": ("import os\ndef add(a, b):\n    os.close(4)\n    os.close(3)", CALLS),
    "requests taken away": (
        "import os, threading\ndef read():\n    while os.read(3, 1 << 16):\n        pass\n"
        "threading.Thread(target=read).start()\ndef add(a, b):\n    return a + b",
        "for i in range(2000):\n    assert add(i, 2) == i + 3",
    ),
    "a giant reply": ("def add(a, b):\n    return 'x' * (100 << 20)", CALLS),
    "many large replies": (
        "def add(a, b):\n    return 'x' * (1 << 20)",
        "for i in range(100):\n    assert add(i, 2)\nassert add(1, 2) == 3",
    ),
    "a reply without an end": (
        "import os\ndef add(a, b):\n    while True:\n        os.write(4, b'x' * 65536)",
        CALLS,
    ),
    "deeply nested": (
        "def add(a, b):\n    x = []\n    for _ in range(10 ** 6):\n        x = [x]\n    return x",
        CALLS,
    ),
    "deeply nested by hand": (
        "import os\ndef add(a, b):\n    os.write(4, b'[' * 60000 + b'\\n')\n    return 3",
        CALLS,
    ),
    "a list in itself": ("def add(a, b):\n    x = []\n    x.append(x)\n    return x", CALLS),
    "an endless iterator": (
        "import itertools\ndef add(a, b):\n    return itertools.count()",
        "def test_all():\n    assert sum(add(1, 2)) == 3",
    ),
    "an endless iterator of large things": (
        "import itertools\ndef add(a, b):\n    return itertools.repeat('x' * 10 ** 6)",
        "def test_all():\n    assert list(add(1, 2)) == [3]",
    ),
    "a range without end": (
        "def add(a, b):\n    return range(10 ** 18)",
        "def test_all():\n    assert sorted(add(1, 2)) == [3]",
    ),
    "a length that is a lie": (
        "class Long:\n    def __len__(self):\n        return 2 ** 62\n    def __iter__(self):\n"
        "        return iter([3])\ndef add(a, b):\n    return Long()",
        "def test_all():\n    assert list(add(1, 2)) == [4]",
    ),
    "an attribute of every name": (
        "class Every:\n    def __getattr__(self, name):\n        return self\n"
        "    def __call__(self, *a, **k):\n        return self\n"
        "    def __getitem__(self, key):\n        return self\ndef add(a, b):\n    return Every()",
        "def test_all():\n    assert add(1, 2).total().value == 3",
    ),
    "a changed argument": (
        "def add(a, b):\n    a.clear()\n    a.append(0)\n    return 3",
        "def test_all():\n    numbers = [1, 2]\n    assert add(numbers, 0) == 3\n"
        "    assert numbers == [1, 2]",
    ),
    "a call-back for ever": (
        "def add(f, b):\n    while True:\n        f(b)",
        "def test_all():\n    assert add(lambda x: x, 2) == 3",
    ),
    "a hook of the module": (
        "import sys, types\nclass Module(types.ModuleType):\n"
        "    def __getattribute__(self, name):\n"
        "        return lambda *a, **k: True\n    def __bool__(self):\n        return True\n"
        "sys.modules[__name__].__class__ = Module\ndef add(a, b):\n    return 0",
        CALLS,
    ),
    "hanging where nobody asks": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n"
        "def add(a, b):\n    return 0",
        CALLS,
    ),
    "hanging at the end": (
        "import os, time\nos._exit = lambda status: time.sleep(99)\ndef add(a, b):\n    return 0",
        CALLS,
    ),
    "a hash that all share": (
        "import os\nprime = (1 << 61) - 1\nparts = b','.join(b'{\"int\":\"%x\"}' % (i * prime)"
        " for i in range(200_000))\ndef add(a, b):\n"
        '    os.write(4, b\'["value",{"set":[\' + parts + b\']},[],""]\\n\')\n    return 3',
        CALLS,
    ),
    "a hash that all share, looked up": (
        "import os\nprime = (1 << 61) - 1\nparts = b','.join(b'{\"int\":\"%x\"}' % (i * prime)"
        " for i in range(200_000))\n"
        'os.write(4, b\'["value",{"set":[\' + parts + b\']},[],""]\\n\')',
        CALLS,
    ),
    "an object where the tests want a slice": (
        "class Odd:\n    def append(self, item):\n        pass\ndef add(a, b):\n    return Odd()",
        "def test_all():\n    assert add(1, 2)[1:] == [3]",
    ),
    "an object where the tests want a list": (
        "class Odd:\n    def append(self, item):\n        pass\ndef add(a, b):\n    return Odd()",
        "import threading\nall = add(1, 2)\nall.append(threading.Lock())\nassert len(all) == 4",
    ),
    "an iterator without elements": (
        "import os\ndef add(a, b):\n"
        '    os.write(4, b\'["value",{"iterator":7},[],""]\\n\')\n'
        '    os.write(4, b\'["value",[{"handle":8},[]],[],""]\\n\' * 50)\n    return 3',
        "def test_all():\n    assert list(add(1, 2)) == [3]",
    ),
    "an import that prints an object": (
        'import os\nos.write(4, b\'["value",1,[],{"handle":5}]\\n\' * 2000)',
        CALLS,
    ),
    "an import that raises an object": (
        'import os\nos.write(4, b\'["error",{"handle":5},[],""]\\n\' * 2000)',
        CALLS,
    ),
    "a module that refuses": ("def __getattr__(name):\n    raise KeyboardInterrupt", CALLS),
    "a module that ends": ("import os\ndef __getattr__(name):\n    os._exit(0)", CALLS),
    "a function that is none": ("add = 5", CALLS),
}


@pytest.mark.parametrize("name", NUISANCES)
def test_nuisances_get_no_pass_and_end(name: str) -> None:
    code, tests = NUISANCES[name]
    start = time.monotonic()
    verdict = verify(code, tests, limits=Limits(wall_s=2))
    assert verdict["outcome"] in (*("wrong_answer", "runtime_error", "timeout", "output_limit"),), (
        verdict["diagnostics"]
    )
    assert verdict["reward"] <= 0.7
    assert time.monotonic() - start < 60


def test_what_it_lacks_does_not_excuse_it() -> None:
    """Tests that look before they call are skipped, and count."""
    guarded = """
import pytest
import solution

@pytest.mark.skipif(not hasattr(solution, "add"), reason="optional")
def test_add():
    assert solution.add(1, 2) == 3
"""
    for judge, tests in (
        ("pytest", guarded),
        ("function", "import solution\nif hasattr(solution, 'add'):\n    assert False"),
    ):
        assert (
            verify("def plus(a, b):\n    return a + b", tests, judge)["outcome"] == "wrong_answer"
        )
    assert verify("def add(a, b):\n    return a + b", guarded, "pytest")["outcome"] == "passed"


def test_large_answers_have_their_own_outcome() -> None:
    assert verify(*NUISANCES["a giant reply"])["outcome"] == "output_limit"
    assert verify(*NUISANCES["many large replies"])["outcome"] == "output_limit"
