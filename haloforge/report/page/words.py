"""Figures as words."""

from collections.abc import Sequence

from haloforge.benchmark.passk import Estimate

NONE = "—"
"""What stands where there is no figure."""


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage; a dash where there is none."""
    if share is None:
        return NONE
    shown = f"{100 * share:.{digits}f}"
    if float(shown) == 0 and share > 0:
        return f"<{10**-digits:g}%"
    return f"{shown}%"


def figure(value: float | None, digits: int = 2) -> str:
    """A number, in thousands with separators; a dash where there is none."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.{digits}f}"


def interval(estimate: Estimate | None) -> str:
    """A mean and its 95% interval, in percent."""
    if estimate is None:
        return "not measured"
    mean, low, high = (100 * value for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:.1f}% ({low:.1f} to {high:.1f})"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, as many as matter."""
    if seconds is None:
        return NONE
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def plural(number: int, what: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def span(first: str, last: str) -> str:
    """How a figure went from the first cycle to the last."""
    return first if first == last else f"{first} to {last}"
