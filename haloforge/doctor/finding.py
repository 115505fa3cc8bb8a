"""What one check found."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """A `warning` costs speed or a feature; with a `fault` runs would not work."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """What was `found`, and what to do about it: one or more lines, commands by themselves."""

    name: str
    status: Status
    found: str
    advice: str | None = None


Check = Callable[[], Finding]


def looked(name: str, check: Check) -> Finding:
    """What `check` found; that it failed is a fault too."""
    try:
        return check()
    except Exception as error:  # of whatever kind: the other checks are still worth telling
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]}".rstrip(": ")
        return Finding(name, Status.FAULT, f"could not be checked: {reason}")


def ok(name: str, found: str) -> Finding:
    return Finding(name, Status.OK, found)


def warning(name: str, found: str, advice: str | None = None) -> Finding:
    return Finding(name, Status.WARNING, found, advice)


def fault(name: str, found: str, advice: str | None = None) -> Finding:
    return Finding(name, Status.FAULT, found, advice)
