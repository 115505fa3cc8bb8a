"""What an address asks for, and the addresses of what pages lead to."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol
from urllib.parse import urlencode

from haloforge.errors import InputError
from haloforge.view.filters import Filter


class Query(Protocol):
    """The query of an address, whose names may repeat."""

    def get(self, name: str, /) -> str | None: ...
    def getall(self, name: str, default: list[str], /) -> list[str]: ...


class Named(NamedTuple):
    """A sample as addresses name it: it stays that when shards are compacted."""

    source: str
    problem: str
    number: int


def filter_of(query: Query) -> Filter:
    """The filter that a query asks for. Raises InputError for what is no number or no answer."""
    cycle = _number(query, "cycle")
    if cycle is not None and cycle != int(cycle):
        raise InputError("cycle: expected a whole number")
    kept = (query.get("kept") or "").strip()
    if kept not in ("", "yes", "no"):
        raise InputError(f"kept: expected yes or no, found '{kept}'")
    return Filter(
        source=query.get("source") or None,
        cycle=None if cycle is None else int(cycle),
        outcomes=tuple(filter(None, ",".join(query.getall("outcome", [])).split(","))),
        problem=query.get("problem") or "",
        min_reward=_number(query, "min_reward"),
        max_reward=_number(query, "max_reward"),
        kept=None if not kept else kept == "yes",
        sort=query.get("sort") or "commits",
    )


def page_of(query: Query) -> int:
    """The page of a list, from 1 on."""
    return max(1, int(_number(query, "page") or 1))


def named_of(query: Query) -> Named | None:
    """The sample that a query names; None where it names none."""
    source, problem, index = query.get("in"), query.get("of"), query.get("n")
    if source is None or problem is None or index is None or not index.isdecimal():
        return None
    return Named(source, problem, int(index[:12]))


def list_url(wanted: Filter, page: int = 1) -> str:
    """The address of a page of what is wanted."""
    return _address("/", {**_told(wanted), **({"page": [str(page)]} if page > 1 else {})})


def sample_url(named: Named, wanted: Filter | None = None, path: str = "/sample") -> str:
    """The address of a sample, among those that are wanted."""
    name = {"in": [named.source], "of": [named.problem], "n": [str(named.number)]}
    return _address(path, {**name, **_told(wanted or Filter())})


def raw_url(named: Named, what: str) -> str:
    """The address of one of its texts, as it is stored."""
    return f"{sample_url(named, path='/raw')}&{urlencode({'what': what})}"


def with_outcome(wanted: Filter, outcome: str) -> Filter:
    """The filter with this outcome alone, or without where it has just that."""
    return replace(wanted, outcomes=() if wanted.outcomes == (outcome,) else (outcome,))


def number(value: float | None) -> str:
    """As a field of a form holds it."""
    return "" if value is None else repr(value).removesuffix(".0")


def _address(path: str, names: Mapping[str, list[str]]) -> str:
    told = urlencode([(name, value) for name, values in names.items() for value in values])
    return f"{path}?{told}" if told else path


def _told(wanted: Filter) -> dict[str, list[str]]:
    """What of a filter is not as it is by itself."""
    found = {
        "source": [wanted.source or ""],
        "cycle": ["" if wanted.cycle is None else str(wanted.cycle)],
        "outcome": list(wanted.outcomes),
        "problem": [wanted.problem],
        "min_reward": [number(wanted.min_reward)],
        "max_reward": [number(wanted.max_reward)],
        "kept": ["" if wanted.kept is None else "yes" if wanted.kept else "no"],
        "sort": ["" if wanted.sort == "commits" else wanted.sort],
    }
    return {name: values for name, values in found.items() if any(values)}


def _number(query: Query, name: str) -> float | None:
    text = (query.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == float("inf"):
        raise InputError(f"{name}: expected a number, found '{text}'")
    return value
