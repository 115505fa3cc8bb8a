"""Plain data crosses between the tests' box and the solution's as what it is, and nothing else."""

import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haloforge.verify.function.encoding import DEPTH, CrossingError, encode, from_line, to_line
from haloforge.verify.function.proxies import CandidateLost, Client, Handle, RemoteError

Point = namedtuple("Point", "x y")


class Level(IntEnum):
    LOW = 1


class Liar:
    """Mixed into builtins: everything that could be asked of the value itself is a lie."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def _lie(self, *args: Any) -> Any:
        return 7

    __int__ = __index__ = __float__ = __complex__ = __abs__ = __iter__ = __len__ = _lie
    __str__ = __repr__ = __getitem__ = items = keys = values = hex = copy = tolist = _lie
    real = imag = property(_lie)


LYING: list[tuple[Any, Any]] = [
    *((int, 5), (float, 1.5), (complex, 2j), (str, "a"), (bytes, b"a"), (bytearray, b"b")),
    *((list, [1]), (tuple, [1]), (dict, {1: 2}), (set, [1]), (frozenset, [1])),
]


def no_reference(value: Any, base: type | None) -> Any:
    if base is None:
        raise CrossingError(f"no reference for {type(value).__name__}")


def no_resolution(tag: str, content: Any) -> Any:
    raise ValueError(tag)


def crossed(value: Any) -> Any:
    line = to_line(encode(value, no_reference))
    assert line.count(b"\n") == 1
    return from_line(line[:-1], no_resolution)


def shape(value: Any) -> Any:
    """`value` with the types of all that is in it, and nan equal to itself."""
    if isinstance(value, dict):
        return "dict", [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(map(repr, map(shape, value)))
    return type(value), hex(value) if type(value) is int else repr(value)


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
)
hashable = st.recursive(
    atoms, lambda inner: st.lists(inner).map(tuple) | st.frozensets(inner), max_leaves=5
)
plain = st.recursive(
    atoms | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(hashable)
        | st.frozensets(hashable)
        | st.dictionaries(hashable, inner)
    ),
    max_leaves=20,
)


@settings(deadline=None)  # the machine may be busy
@given(plain)
def test_plain_data_comes_back_the_same(value: Any) -> None:
    assert shape(crossed(value)) == shape(value)


@pytest.mark.parametrize(
    "value",
    [
        10**5000,
        -(1 << 63),
        float("nan"),
        float("inf"),
        -0.0,
        5e-324,
        "\ud83d\ude00",  # two lone surrogates, which JSON's escapes would join
        '\ud800 \u2028\n\0"\\',
        range(10**30, 0, -7),
        {2: "b", 1: "a", (1, 2): [], None: 1, 1.5: 2},
        {"dict": 1},
        [True, 1, 1.0, "1"],
        complex(math.nan, -0.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_at_the_edges(value: Any) -> None:
    assert shape(crossed(value)) == shape(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Level.LOW, 1),
        (Point(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        ({Point(1, 2): 1}, {(1, 2): 1}),
        *((type(f"L{base.__name__}", (Liar, base), {})(one), base(one)) for base, one in LYING),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_cross_as_their_base_whatever_they_say(value: Any, expected: Any) -> None:
    assert shape(crossed([value])) == shape([expected])


def test_the_order_of_an_ordered_dict_is_its_own() -> None:
    value = OrderedDict(a=1, b=2)
    value.move_to_end("a")
    assert list(crossed(value)) == ["b", "a"]


def test_what_is_no_plain_data_has_no_line() -> None:
    for value in (object(), [print], {1: Liar()}, iter([])):
        with pytest.raises(CrossingError, match="no reference"):
            crossed(value)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CrossingError, match=f"more than {DEPTH} deep"):
        crossed(endless)
    deep: Any = []
    for _ in range(DEPTH - 1):
        deep = (deep,)
    assert crossed(deep) == deep


class Wire:
    """A client whose solution's process has sent `lines` and then ended."""

    def __init__(self, lines: bytes) -> None:
        self.client = Client(0, 0, lambda text: None, lambda: None)
        self.client.lines.buffer += lines
        self.client.lines.read_fd = -1

    def hear(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr("os.read", lambda fd, size: b"")
        monkeypatch.setattr("os.write", lambda fd, data: len(data))
        return self.client.ask("getattr", self.client.solution, "x")


MADE_UP = {
    "nothing": b"",
    "half a line": b'["value",1,[],""]',
    "no JSON": b"PASSED\n",
    "no UTF-8": b'["value","\xff",[],""]\n',
    "an object": b'{"test": "all", "outcome": "passed"}\n',
    "too short": b'["value",1]\n',
    "an unknown kind": b'["passed",1,[],""]\n',
    "an unknown tag": b'["value",{"eval":"1"},[],""]\n',
    "a builtin that is no type": b'["value",{"type":"eval"},[],""]\n',
    "no builtin": b'["value",{"type":"os"},[],""]\n',
    "two tags": b'["value",{"tuple":[],"list":[]},[],""]\n',
    "a tuple of a range": b'["value",{"tuple":{"range":[0,1000000000000,1]}},[],""]\n',
    "a set of lists": b'["value",{"set":[[1]]},[],""]\n',
    "a dictionary with a key too many": b'["value",{"dict":[1,2,3]},[],""]\n',
    "a handle of no number": b'["value",{"handle":"x"},[],""]\n',
    "a call-back that was never given": b'["callback",0,[],{"dict":[]}]\n',
    "an error class of no bases": b'["error",{"error":[1,"E",[5]]},[],""]\n',
    "changes of nothing": b'["value",1,5,""]\n',
    "deep": b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "digits": b'["value",' + b"9" * 100_000 + b',[],""]\n',
}


@pytest.mark.parametrize("name", MADE_UP)
def test_made_up_replies_end_the_tests(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(MADE_UP[name])
    with pytest.raises(CandidateLost):
        wire.hear(monkeypatch)
    with pytest.raises(CandidateLost):  # for good
        wire.hear(monkeypatch)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'["error",{"type":"ValueError"},["no"],""]\n', ValueError),
        (b'["error",{"type":"SystemExit"},[0],""]\n', SystemExit),
        (b'["error",{"type":"StopIteration"},[],""]\n', RemoteError),
        (b'["error",{"type":"KeyboardInterrupt"},[],""]\n', RemoteError),
        (b'["error",{"type":"GeneratorExit"},[],""]\n', RemoteError),
        (b'["error",{"type":"int"},[],""]\n', RemoteError),
        (b'["error",5,[],""]\n', RemoteError),
        (b'["error",{"type":"UnicodeDecodeError"},["no"],""]\n', RemoteError),
        (b'["error",{"error":[9,"Mine",[{"type":"KeyError"}]]},["no"],""]\n', KeyError),
        (b'["error",{"error":[9,"Mine",[{"type":"StopIteration"}]]},[],""]\n', Exception),
    ],
)
def test_exceptions_cross_by_name_but_for_those_that_end_loops(
    line: bytes, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind) as raised:
        Wire(line).hear(monkeypatch)
    assert not isinstance(raised.value, StopIteration)
    assert b"Mine" not in line or type(raised.value).__name__ == "Mine"


def test_a_handle_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(b'["value",{"handle":5},[],""]\n' * 2)
    one, same = wire.hear(monkeypatch), wire.hear(monkeypatch)
    assert type(one) is Handle
    assert one is same
    asked: list[Any] = []

    def exchange(*request: Any) -> Any:
        asked.append(request)
        return True, {}

    monkeypatch.setattr(wire.client, "exchange", exchange)
    assert one != 3
    assert (one == [3]) is False
    assert one in {one}
    for act in (
        *(lambda: one < 3, lambda: one - 3, lambda: 3 - one, lambda: abs(one), lambda: -one),
        *(lambda: int(one), lambda: float(one), lambda: round(one), lambda: one.__eq__(3) is True),
        *(lambda: one.__class__(), lambda: one.__dict__["x"], lambda: one.__float__()),
    ):
        with pytest.raises((TypeError, AttributeError, KeyError, AssertionError)):
            assert act()
    assert asked == []
    assert not isinstance(one, int)
