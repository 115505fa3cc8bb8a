"""A comparison as Markdown and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from haloforge.benchmark.compare import Comparison
from haloforge.benchmark.passk import Estimate
from haloforge.report.summary import signed


def comparison_markdown(comparison: Comparison) -> str:
    """Tables of measures, of differences in percentage points, and of problems won and lost."""
    results, pairs = comparison.results, comparison.pairs
    first = next(iter(results))
    measures = dict.fromkeys(m for result in results.values() for m in result.measures)
    compared = dict.fromkeys(m for pair in pairs.values() for m in pair.differences)

    def row(name: str, found: Sequence[Estimate | None], differ: bool = False) -> list[str]:
        shown = signed if differ else str
        return [name, *(shown(e) if e else "not measured" for e in found)]

    parts = [
        _table(
            ["measure", *results],
            [row(m, [r.measures.get(m) for r in results.values()]) for m in measures],
        ),
        _table(
            [f"minus {first}", *pairs],
            [row(m, [p.differences.get(m) for p in pairs.values()], True) for m in compared],
        ),
        _table(
            ["by problem", "in common", "wins", "losses", "ties"],
            [
                [name, *map(str, (p.problems, len(p.wins), len(p.losses), p.ties))]
                for name, p in pairs.items()
            ],
        ),
        *(
            _table(
                [f"problem: {name}", first, name],
                [
                    [problem, *(f"{share:.0%}" for share in shares)]
                    for problem, shares in sorted({**pair.wins, **pair.losses}.items())
                ],
            )
            for name, pair in pairs.items()
            if pair.wins or pair.losses
        ),
        "\n".join(f"- warning: {line}" for line in comparison.warnings),
        "Means over problems with 95% intervals; differences are paired, in percentage points.",
    ]
    return "\n\n".join(part for part in parts if part)


def comparison_json(comparison: Comparison) -> str:
    """`comparison_tree` as text."""
    return json.dumps(comparison_tree(comparison), indent=2)


def comparison_tree(comparison: Comparison) -> dict[str, Any]:
    """All of it; the shares of a problem are those of the first model and of the other."""
    results = comparison.results
    return {
        "reference": next(iter(results)),
        "models": {
            name: {
                "policy": result.policy,
                "problems": result.problems,
                "samples": result.samples,
                "infra_errors": result.infra_errors,
                "complete": result.complete,
                "measures": {m: asdict(e) for m, e in result.measures.items()},
            }
            for name, result in results.items()
        },
        "differences": {name: asdict(pair) for name, pair in comparison.pairs.items()},
        "warnings": comparison.warnings,
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in [head, ["---"] * len(head), *rows]
    )
