"""What `data validate` tells: as JSON, and as tables for a reader."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from haloforge.data.validate.benchmarks import AtHand
from haloforge.data.validate.contamination import Index
from haloforge.data.validate.found import Found
from haloforge.data.validate.rows import FAULTS, WARNINGS, Fault, Kind
from haloforge.report.rows import one_line
from haloforge.store.run import write_atomic

if TYPE_CHECKING:
    from haloforge.data.validate.validate import Rules

Findings = dict[str, Any]
"""The report: counts, and of each kind of fault the first rows that have it."""

_NOT_ASKED = "not asked for"
_SHOWN = 3  # rows of each kind
_MOST_NAMES = 6  # of a mix


def findings(
    found: Found,
    files: Sequence[str],
    rules: "Rules",
    model: str,
    benchmarks: AtHand,
    index: Index | None,
    judged: int | None,
) -> Findings:
    """The report on what was `found`; `judged` references were judged, None where that was not
    asked for."""
    faults = ((row, fault) for row, all_of_row in found.faults() for fault in all_of_row)
    wrong = int(found.bad.sum())
    listed = _listed(FAULTS, faults, found, rules.listed)
    return {
        "made_by": f"haloforge {version('haloforge')}",
        "files": list(files),
        "rows": len(found),
        "good": len(found) - wrong,
        "wrong": wrong,
        "faults": listed,
        "warnings": _listed(WARNINGS, found.warnings(), found, rules.listed),
        "tokens": _tokens(found, model, rules.max_length),
        "languages": dict(found.languages.most_common()),
        "licences": dict(found.licences.most_common()),
        "references": {
            "judged": judged or 0,
            "skipped": _NOT_ASKED if judged is None else None,
        },
        "contamination": {
            "compared": _compared(index),
            "not_at_hand": benchmarks.missing,
            "skipped": _NOT_ASKED if index is None else None,
        },
        "rules": asdict(rules),
    }


def _listed(
    kinds: Mapping[Kind, str], faults: Iterable[tuple[int, Fault]], found: Found, most: int
) -> dict[str, Any]:
    """Of each kind its meaning, how many rows have it, and the first of them."""
    told: dict[Kind, dict[str, Any]] = {
        kind: {"meaning": meaning, "rows": 0, "listed": []} for kind, meaning in kinds.items()
    }
    last: dict[Kind, int] = {}
    for row, (kind, why) in faults:
        of_kind = told[kind]
        if last.get(kind) != row:  # a row may have two faults of a kind
            of_kind["rows"] += 1
            last[kind] = row
        if len(of_kind["listed"]) < most:
            file, line = found.place(row)
            of_kind["listed"].append({"file": file, "line": line, "why": why})
    return {str(kind): of_kind for kind, of_kind in told.items()}


def _tokens(found: Found, model: str, max_length: int) -> dict[str, Any]:
    counts = found.facts["tokens"]
    counts = counts[counts >= 0]
    told: dict[str, Any] = {"model": model, "rows": len(counts), "max_length": max_length}
    if len(counts):
        least, median, p95, most = np.percentile(counts, [0, 50, 95, 100])
        over = int((counts > max_length).sum())
        told |= {"min": int(least), "median": float(median), "p95": float(p95), "max": int(most)}
        told |= {"over_max_length": over, "share_over_max_length": over / len(counts)}
    return told


def _compared(index: Index | None) -> dict[str, dict[str, int]]:
    """Of each benchmark its problems, and those too short to be compared by their prompts."""
    if index is None:
        return {}
    problems = Counter(index.benchmarks)
    short = index.short()
    return {name: {"problems": problems[name], "by_solution_only": short[name]} for name in short}


def write_report(path: Path, told: Findings) -> None:
    """Writes the report as JSON, whole or not at all."""
    write_atomic(path, json.dumps(told, ensure_ascii=False, indent=2) + "\n")


def print_findings(told: Findings) -> None:
    """The report as tables on standard output."""
    console = Console(highlight=False)
    table = Table("", "kind", "rows", "what it is")
    examples = []
    for title, kinds in (("fault", told["faults"]), ("warning", told["warnings"])):
        for kind, found in kinds.items():
            if found["rows"]:
                table.add_row(title, kind, str(found["rows"]), found["meaning"])
                examples += [f"{kind}: {_where(each)}" for each in found["listed"][:_SHOWN]]
    if table.row_count:
        console.print(table)
    lines = [
        f"{told['rows']} rows: {told['good']} good, {told['wrong']} wrong",
        _told_tokens(told["tokens"]),
        f"languages: {_mix(told['languages'])}",
        f"licences: {_mix(told['licences'])}",
        _told_references(told["references"]),
        *_told_contamination(told["contamination"]),
        *examples,
    ]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _where(listed: Mapping[str, Any]) -> str:
    return one_line(f"{listed['file']}, line {listed['line']}: {listed['why']}")


def _mix(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    shown = [f"{one_line(name)} {count / total:.1%}" for name, count in counts.items()][
        :_MOST_NAMES
    ]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _told_tokens(tokens: Mapping[str, Any]) -> str:
    if "min" not in tokens:
        return "tokens: no row could be read"
    return (
        f"tokens ({tokens['model']}): min {tokens['min']}, median {tokens['median']:g}, p95 "
        f"{tokens['p95']:g}, max {tokens['max']}; {tokens['share_over_max_length']:.1%} over "
        f"{tokens['max_length']}"
    )


def _told_references(references: Mapping[str, Any]) -> str:
    if references["skipped"]:
        return f"references: not judged ({references['skipped']})"
    return f"references: {references['judged']} judged"


def _told_contamination(found: Mapping[str, Any]) -> list[str]:
    if found["skipped"]:
        return [f"benchmarks: not compared ({found['skipped']})"]
    compared = [f"{name} ({each['problems']})" for name, each in found["compared"].items()]
    lines = [f"benchmarks compared: {', '.join(compared)}"]
    if found["not_at_hand"]:
        lines.append(f"benchmarks not at hand: {', '.join(found['not_at_hand'])}")
    return lines
