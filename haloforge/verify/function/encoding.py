"""Plain data as lines of JSON, the only thing that crosses between the tests and the solution.

None, bool, int, float, str and list are JSON's own (with its usual NaN and Infinity); the other
plain types are an object of one field, their name. A subclass crosses as the plain type it derives
from, by that type's own methods, so that nothing it overrides has a say. What is no plain data is
left to `refer`, which each side has of its own.
"""

from __future__ import annotations

import builtins
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

DEPTH = 100  # of containers in each other
BIG = 1 << 63  # Python limits the digits of longer decimals
PLAIN: tuple[type, ...] = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray),
    *(list, tuple, dict, set, frozenset, range),
)


class CrossingError(Exception):
    """A value that is no plain data, nested too deep, or for which there is no reference."""


def encode(value: Any, refer: Callable[[Any, type | None], Any], depth: int = 0) -> Any:
    """`value` as what `json.dumps` takes.

    `refer(value, base)` is asked for all but exact plain types, with the plain type that `value`
    derives from (None where there is none): its answer stands for the value; None lets the value
    cross as `base`. Raises CrossingError.
    """
    base: Any = type(value)
    if base not in PLAIN:
        base = next((plain for plain in PLAIN if plain in base.__mro__), None)
        reference = refer(value, base)
        if reference is not None:
            return reference
    if value is None or base is bool:
        return value
    if base is int:
        number = int.__int__(value)
        return number if -BIG < number < BIG else {"int": hex(number)}
    if base is float:
        return float.__float__(value)
    if base is str:
        return str.__str__(value)
    if base is complex:
        return {"complex": [complex.real.__get__(value), complex.imag.__get__(value)]}
    if base in (bytes, bytearray):
        return {base.__name__: base.hex(value)}
    if depth == DEPTH:
        raise CrossingError(f"a value is nested more than {DEPTH} deep")
    parts: Any
    if base is dict:
        order = OrderedDict if isinstance(value, OrderedDict) else dict
        parts = [part for pair in order.items(value) for part in pair]
    elif base is range:
        parts = [value.start, value.stop, value.step]
    else:
        parts = base.__iter__(value)
    encoded = [encode(part, refer, depth + 1) for part in parts]
    return encoded if base is list else {base.__name__: encoded}


def to_line(message: Any) -> bytes:
    """An encoded value as one line; lone surrogates stay what they are."""
    text = json.dumps(message, ensure_ascii=False, check_circular=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass") + b"\n"


def from_line(line: bytes, refer: Callable[[str, Any], Any]) -> Any:
    """The value of a line. `refer(tag, content)` stands for what is no plain data.

    Raises ValueError, TypeError, RecursionError or MemoryError for what `to_line` never writes, and
    whatever `refer` raises.
    """

    def untag(tagged: dict[str, Any]) -> Any:
        ((tag, content),) = tagged.items()
        if tag == "int":
            return int(content, 16)
        if tag == "bytes":
            return bytes.fromhex(content)
        if tag == "bytearray":
            return bytearray.fromhex(content)
        if tag not in ("complex", "dict", "tuple", "set", "frozenset", "range"):
            return refer(tag, content)
        if type(content) is not list:  # a short line could ask for all of a range
            raise ValueError(f"no content of a {tag}: a {type(content).__name__}")
        if tag == "complex":
            return complex(*content)
        if tag == "range":
            return range(*content)
        if tag == "dict":
            return {content[i]: content[i + 1] for i in range(0, len(content), 2)}
        return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](content)

    return json.loads(line.decode("utf-8", "surrogatepass"), object_hook=untag)


def is_builtin(value: Any) -> bool:
    """Whether it is a type that both sides know by its name."""
    return isinstance(value, type) and getattr(builtins, value.__name__, None) is value


class Lines:
    """A pair of pipes: whole lines in, whole lines out. `most` caps all that is read, in bytes."""

    def __init__(self, read_fd: int, write_fd: int, most: int | None = None) -> None:
        self.read_fd, self.write_fd, self.left = read_fd, write_fd, most
        self.buffer = bytearray()

    def write(self, line: bytes) -> None:
        """Raises BrokenPipeError when nobody reads."""
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self.write_fd, rest) :]

    def read(self) -> bytes:
        """The next line. Raises EOFError when there is none, OverflowError past the cap."""
        start = 0
        while (end := self.buffer.find(b"\n", start)) < 0:
            start = len(self.buffer)
            data = os.read(self.read_fd, 1 << 16)
            if not data:
                raise EOFError
            if self.left is not None:
                self.left -= len(data)
                if self.left < 0:
                    raise OverflowError
            self.buffer += data
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line
