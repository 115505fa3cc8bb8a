"""Reading a field of a row as what it should be; what it is not is an InputError naming it."""

import json
import math
from typing import Any

from haloforge.data.rows import Row
from haloforge.errors import InputError

Tests = list[dict[str, str]]


def wrong(row: Row, name: str, expected: str) -> InputError:
    return InputError(f"{row.place}: field '{name}': expected {expected}, found {row[name]!r:.40}")


def text(row: Row, name: str) -> str:
    """The text in a field; empty where the field is null or not there."""
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong(row, name, "text")
    return value


def texts(row: Row, name: str) -> list[str]:
    """The texts in a field that is a list of them, also as JSON text, which a CSV holds; none where
    it is empty or not there."""
    values = unpacked(row, name)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise wrong(row, name, "a list of texts")
    return values


def number(row: Row, name: str) -> float | None:
    """The number in a field, also one that is written as text; None where it is null, which some
    tables write as NaN and a CSV as no text."""
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = float(value)
    except (OverflowError, TypeError, ValueError):
        raise wrong(row, name, "a number") from None
    if math.isinf(found):
        raise wrong(row, name, "a finite number")
    return None if math.isnan(found) else found


def flag(row: Row, name: str) -> bool | None:
    """Whether a field is true, also one that is written as text; None where it is empty."""
    value = row.get(name)
    if isinstance(value, str):
        value = {"true": True, "false": False, "": None}.get(value.strip().lower(), value)
    if value is not None and not isinstance(value, bool):
        raise wrong(row, name, "true or false")
    return value


def unpacked(row: Row, name: str) -> Any:
    """What a field holds as JSON text, or as it stands; None where it is empty."""
    value = row.get(name)
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except ValueError:
        raise wrong(row, name, "JSON") from None


def cases(row: Row, name: str) -> Tests:
    """The tests of standard input in a field: a list of pairs, or two lists, as JSON text or not.

    The halves are called `input` and `output`, `inputs` and `outputs`, or `stdin` and `stdout`; one
    that is a list of lines is joined. No tests where the field is empty or not there.
    """
    held = unpacked(row, name)
    if not held:
        return []
    try:
        pairs = _pairs(held) if isinstance(held, dict) else held
        return [{"stdin": _half(pair, 0), "stdout": _half(pair, 1)} for pair in pairs]
    except (IndexError, TypeError, ValueError):
        raise wrong(row, name, "tests, each with 'input' and 'output'") from None


NAMES = (("input", "inputs", "stdin"), ("output", "outputs", "stdout"))


def _pairs(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a struct of lists. Raises ValueError for lists that are not of one length."""
    halves = {name: values for name, values in columns.items() if name in {*NAMES[0], *NAMES[1]}}
    return [dict(zip(halves, pair, strict=True)) for pair in zip(*halves.values(), strict=True)]


def _half(pair: dict[str, Any], side: int) -> str:
    held = [pair[name] for name in NAMES[side] if name in pair]
    value = held[0]
    lines = value if isinstance(value, list) else [value]
    if not all(isinstance(line, str) for line in lines):
        raise TypeError
    return "\n".join(lines)
