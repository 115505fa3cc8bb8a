"""Comparing what a program printed with what it should have."""

import math
import re

from haloforge.schema import Comparison

FLOAT_TOLERANCE = 1e-6
LONGEST_NUMBER = 400  # characters; longer tokens must be equal as text
INTEGER = re.compile(rb"[+-]?[0-9]+")
DECIMAL = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
SPECIAL = re.compile(rb"(?i)([+-]?)(nan|inf)(?:inity)?")


def same(
    printed: bytes, expected: bytes, comparison: Comparison, float_tolerance: float | None = None
) -> bool:
    """Whether `printed` is as good as `expected`.

    `exact`: the same bytes. `whitespace`: equal line by line, but for white space at the ends of
    lines and empty lines at the end. `float`: the same number of tokens between white space, and
    each token the same text, or a number within `float_tolerance` (1e-6), absolute or relative to
    the expected one, whichever allows more. Two integers must be equal: an answer of 10^9 + 1 is
    wrong where 10^9 is right. nan equals nan, and an infinity one of the same sign.
    """
    if comparison == "exact":
        return printed == expected
    if comparison == "whitespace":
        return _lines(printed) == _lines(expected)
    tolerance = FLOAT_TOLERANCE if float_tolerance is None else float_tolerance
    left, right = printed.split(), expected.split()
    return len(left) == len(right) and all(
        one == other or _near(one, other, tolerance) for one, other in zip(left, right, strict=True)
    )


def _near(printed: bytes, expected: bytes, tolerance: float) -> bool:
    special = SPECIAL.fullmatch(printed), SPECIAL.fullmatch(expected)
    if special[0] and special[1]:
        (sign, name), (other_sign, other_name) = special[0].groups(), special[1].groups()
        same_name = name.lower() == other_name.lower()
        # The sign of a nan is the machine's, not the program's.
        return same_name and (name.lower() == b"nan" or (sign == b"-") == (other_sign == b"-"))
    if INTEGER.fullmatch(printed) and INTEGER.fullmatch(expected):
        return _integer(printed) == _integer(expected)
    if max(len(printed), len(expected)) > LONGEST_NUMBER:
        return False
    if not (DECIMAL.fullmatch(printed) and DECIMAL.fullmatch(expected)):
        return False
    one, other = float(printed), float(expected)
    if math.isinf(one) or math.isinf(other):  # beyond what a double holds: as text, or not at all
        return False
    return abs(one - other) <= tolerance * max(1.0, abs(other))


def _integer(token: bytes) -> tuple[bool, bytes]:
    """Sign and digits: integers of any length, compared without their cost."""
    digits = token.lstrip(b"+-").lstrip(b"0")
    return bool(digits) and token.startswith(b"-"), digits


def _lines(text: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def excerpt(printed: bytes) -> str:
    """The beginning of what was printed, for a reader."""
    text = printed[:200].decode(errors="replace")
    return repr(text) + ("..." if len(printed) > 200 else "")
