"""What honest solutions and tests do works over two boxes as it does in one process."""

import pytest

from tests.judging import verify

# What honest solutions and tests do: code, test code.
HONEST = {
    "objects of the solution's classes": (
        """
class Node:
    def __init__(self, value):
        self.value = value
        self.left = self.right = None

def depth(node):
    return 0 if node is None else 1 + max(depth(node.left), depth(node.right))

def find(node, value):
    while node is not None and node.value != value:
        node = node.left if value < node.value else node.right
    return node
""",
        """
root = Node(2)
root.left = Node(1)
root.left.left = Node(0)
assert depth(root) == 3
assert find(root, 1) == root.left
assert find(root, 5) is None
assert root.left.value == 1
assert isinstance(root, Node)
assert not isinstance(1, Node)
""",
    ),
    "a class that derives from a builtin": (
        """
from collections import OrderedDict, namedtuple
Point = namedtuple("Point", "x y")
class Cache(OrderedDict):
    def put(self, key, value):
        self[key] = value
        return self
def mirrored(point):
    return Point(point.y, point.x)
""",
        """
c = Cache()
c.put(1, 2).put(3, 4)
assert len(c) == 2
assert c[3] == 4
c[5] = 6
assert sorted(c) == [1, 3, 5]
assert 5 in c and 6 not in c
p = Point(1, 2)
assert (p.x, p[1]) == (1, 2)
assert mirrored(p) == (2, 1)
""",
    ),
    "arguments changed in place": (
        """
def f(a, d, s, b, *, k):
    a.sort()
    d["x"] = 1
    s.clear()
    b += b"!"
    k.append([a.pop()])
    del a[0]
""",
        """
a, d, s, b, k = [3, 1, 2], {}, {1}, bytearray(b"a"), []
alias = a
assert f(a, d, s, b, k=k) is None
assert (a, d, s, b, k) == ([2], {"x": 1}, set(), b"a!", [[3]])
assert alias is a
""",
    ),
    "iterators": (
        """
def squares(n):
    for i in range(n):
        yield i * i
def endless():
    n = 0
    while True:
        yield n
        n += 1
def failing():
    yield 1
    raise KeyError("k")
def pairs(a, b):
    return zip(a, b)
def total(numbers):
    return sum(numbers)
""",
        """
import itertools
assert list(squares(1000)) == [i * i for i in range(1000)]
assert tuple(map(str, squares(3))) == ("0", "1", "4")
assert list(pairs("ab", [1, 2])) == [("a", 1), ("b", 2)]
assert list(itertools.islice(endless(), 5)) == [0, 1, 2, 3, 4]
g = squares(3)
assert next(g) == 0
assert 4 in g
assert next(g, None) is None
h = failing()
assert next(h) == 1
try:
    next(h)
    assert False
except KeyError as error:
    assert error.args == ("k",)
assert total(x for x in range(4)) == 6
assert total(squares(3)) == 5
""",
    ),
    "functions as arguments": (
        """
def apply(f, *xs):
    return [f(x) for x in xs]
def twice(f):
    return lambda x: f(f(x))
def safe(f):
    try:
        return f()
    except ValueError as error:
        return str(error)
def inc(x):
    return x + 1
def made(kind, x):
    return kind(x)
class Bell:
    def __init__(self):
        self.heard = []
    def on(self, f):
        self.heard.append(f)
    def off(self, f):
        self.heard.remove(f)
    def ring(self):
        return [f() for f in self.heard]
""",
        """
assert apply(lambda x: x * 2, 1, "a") == [2, "aa"]
assert twice(lambda x: x + 1)(1) == 3
assert apply(inc, 1) == [2]
assert apply(lambda x: inc(inc(x)), 1) == [3]
assert apply(len, "ab") == [1, 1] or apply(len, "ab", "c") == [2, 1]
assert made(int, "5") == 5
assert made(list, "ab") == ["a", "b"]
seen = []
assert apply(seen.append, 1, 2) == [None, None]
assert seen == [1, 2]
def fail():
    raise ValueError("no")
assert safe(fail) == "no"
bell = Bell()
one = lambda: 1
bell.on(one)
bell.on(lambda: 2)
assert bell.ring() == [1, 2]
bell.off(one)
assert bell.ring() == [2]
""",
    ),
    "exceptions": (
        """
class Empty(ValueError):
    pass
class Worse(Empty):
    pass
def pop(a):
    if not a:
        raise Worse("nothing", 5)
    return a[-1]
def index(a, i):
    return a[i]
""",
        """
for kind in (Worse, Empty, ValueError, Exception):
    try:
        pop([])
        assert False
    except kind as error:
        assert error.args == ("nothing", 5)
try:
    index([], 1)
    assert False
except IndexError as error:
    assert str(error) == "list index out of range"
assert pop([1]) == 1
""",
    ),
    "plain data of every type": (
        """
def same(x):
    return x
def kind(x):
    return type(x).__name__
""",
        """
for x in (
    None, True, 10 ** 5000, 1.5, 1j, "a\\ud800", b"b", bytearray(b"c"), [1], (1, [2]),
    {1}, frozenset({2}), {(1,): {"a": None}}, range(3),
):
    assert same(x) == x and type(same(x)) is type(x)
    assert kind(x) == type(x).__name__
""",
    ),
    "the solution's names, and builtins of its own": (
        """
import math
LIMIT = 3
def sum(a):
    return "mine"
def area(r):
    return math.pi * r * r
""",
        """
assert LIMIT == 3
assert math.isclose(area(1), 3.14159, rel_tol=1e-3)
assert sum([1, 2]) == 3
import solution
assert solution.LIMIT == 3
from solution import area as also
assert also(0) == 0
""",
    ),
    "state kept over calls": (
        """
count = 0
def tick():
    global count
    count += 1
    return count
""",
        """
import solution
assert tick() == 1
assert tick() == 2
assert solution.count == 2
""",
    ),
    "printing": (
        """
def hello(name):
    print("Hello,", name)
""",
        """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as out:
    hello("you")
assert out.getvalue() == "Hello, you\\n"
""",
    ),
    "future annotations and dataclasses": (
        """
from dataclasses import dataclass
@dataclass
class P:
    x: int
    y: int = 2
def annotated():
    return P.__annotations__["x"] is int
""",
        """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Q:
    x: Missing
assert P(1).y == 2
assert annotated() is True
assert repr(P(1)) == "P(x=1, y=2)"
assert Q(1) == Q(1)
""",
    ),
    "deep recursion": (
        """
import sys
sys.setrecursionlimit(10 ** 6)
def f(n):
    return n and 1 + f(n - 1)
""",
        "assert f(50_000) == 50_000",
    ),
    "a main block": (
        "def add(a, b):\n    return a + b\nif __name__ == '__main__':\n    print(add(*input()))",
        "assert add(1, 2) == 3",
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_solutions_pass(name: str) -> None:
    code, test_code = HONEST[name]
    verdict = verify(code, test_code=test_code)
    assert verdict["outcome"] == "passed", verdict["diagnostics"]
    assert verdict["tests_passed"] == verdict["tests_total"] > 0
    assert verdict["ran"]


def test_a_builtin_s_name_as_the_entry_point() -> None:
    code = "def sum(a):\n    return 'mine'"
    verdict = verify(code, test_code="assert sum([1]) == 'mine'", entry_point="sum")
    assert verdict["outcome"] == "passed", verdict["diagnostics"]


PYTEST_FEATURES = """
import sys
import unittest
import pytest
import answer
from answer import *

CASES = [pytest.param(1, 2, id="one"), pytest.param(2, 4, id="two")]

@pytest.fixture(scope="module", params=[3, 5])
def number(request):
    yield request.param

class TestDouble:
    @pytest.mark.parametrize("given, expected", CASES)
    def test_case(self, given, expected):
        assert double(given) == expected

    def test_fixture(self, number, tmp_path, monkeypatch, capsys):
        (tmp_path / "file").write_text("x")
        monkeypatch.setattr(sys, "argv", ["x"])
        assert answer.double(number) == 2 * number
        assert capsys.readouterr().out == f"doubling {number}\\n"

def test_part_replaced(monkeypatch):
    monkeypatch.setattr(answer, "factor", lambda: 10)
    assert double(1) == 10

def test_part_restored():
    assert double(1) == 2

class Old(unittest.TestCase):
    def test_old(self):
        self.assertEqual(double("a"), "aa")
        with self.assertRaises(answer.Refused):
            double(None)

def test_approx():
    assert double(0.1) == pytest.approx(0.2)
    assert double([0.1]) == pytest.approx([0.1, 0.1])
    assert list(map(len, [[1]])) == [1]
"""
DOUBLE = """
class Refused(Exception):
    pass

def factor():
    return 2

def double(x):
    print("doubling", x)
    if x is None:
        raise Refused("no")
    return x * factor()

def len(x):
    return 99
"""


def test_pytest_features() -> None:
    fields = {"judge": "pytest", "test_code": PYTEST_FEATURES, "entry_point": "answer"}
    verdict = verify(DOUBLE, **fields)
    assert verdict["outcome"] == "passed", verdict["diagnostics"]
    assert verdict["tests_passed"] == verdict["tests_total"] == 8
    wrong = verify(DOUBLE.replace("x * factor()", "x * factor() if x != 5 else 0"), **fields)
    assert (wrong["outcome"], wrong["tests_passed"]) == ("wrong_answer", 7)
    assert "test_fixture[5]" in wrong["diagnostics"]
