"""Results as text."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from haloforge.benchmark.compare import Comparison
from haloforge.benchmark.passk import Estimate
from haloforge.benchmark.results import Result
from haloforge.prove import Proof
from haloforge.report.summary import Estimates, paired_differences, paired_name, signed
from haloforge.rescore import Scores
from haloforge.schema import Outcome

_SHOWN = 12  # rows of a breakdown, and problems won or lost


def results_table(results: Mapping[str, Result]) -> str:
    """One row a measure, one column a model; paired differences, or the breakdowns of the only one;
    what the samples came to."""
    lines = estimates_table(
        {name: result.measures for name, result in results.items()}, paired_differences(results)
    )
    first = next(iter(results.values()))
    if len(results) == 1:
        lines += breakdowns_table(first)
    return "\n".join([*lines, "", *_facts(results)])


def comparison_table(comparison: Comparison) -> str:
    """As `results_table`, with the differences of each result to the first one only, the problems
    won and lost, and where the models were not measured alike."""
    results = comparison.results
    first = next(iter(results))
    lines = estimates_table(
        {name: result.measures for name, result in results.items()},
        {paired_name(name, first): pair.differences for name, pair in comparison.pairs.items()},
    )
    rows = [
        [f"{name} - {first}"]
        + [str(number) for number in (pair.problems, len(pair.wins), len(pair.losses), pair.ties)]
        for name, pair in comparison.pairs.items()
    ]
    lines += ["", *columns([["by problem", "problems", "wins", "losses", "ties"], *rows])]
    for name, pair in comparison.pairs.items():
        for what, problems in (("wins", pair.wins), ("losses", pair.losses)):
            if problems:
                lines.append(f"{name} {what}: {_listed(list(problems))}")
    lines += [f"warning: {line}" for line in comparison.warnings]
    return "\n".join([*lines, "", *_facts(results)])


def breakdowns_table(result: Result) -> list[str]:
    """One row a difficulty, tag or language, where there are several, the largest first."""
    wide = [m for m in result.measures if not m.startswith(("compile@", "raw_"))]
    lines: list[str] = []
    for name, rows in result.breakdowns.items():
        numbers = {
            value: max(e.problems for e in found.values()) for value, found in rows.items() if found
        }
        shown = sorted(numbers, key=lambda value: -numbers[value])[:_SHOWN]
        if len(numbers) > 1:
            body = [
                [value, str(numbers[value])]
                + [str(rows[value][m]) if m in rows[value] else "not measured" for m in wide]
                for value in shown
            ]
            lines += ["", *columns([[name, "problems", *wide], *body])]
        if len(numbers) > len(shown):
            lines.append(f"{len(numbers) - len(shown)} more are in results.json")
    return lines


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _facts(results: Mapping[str, Result]) -> list[str]:
    """How it was measured, and what each model's samples came to."""
    first = next(iter(results.values()))
    lines = [
        f"{first.problems} problems, {first.samples} samples each, temperature "
        f"{first.settings.temperature:g}; mean over problems [95% interval by bootstrap]"
    ]
    for name, result in results.items():
        outcomes = ", ".join(
            f"{count} {outcome}" for outcome, count in sorted(result.outcomes.items())
        )
        shares = ", ".join(f"{share:.0%} {what}" for what, share in result.shares.items())
        tiers = ", ".join(sorted(result.sandbox_tiers))
        lines.append(f"{name}: {outcomes}; of them {shares}; sandbox {tiers}")
        if not result.complete:
            lines.append(
                f"{name}: INCOMPLETE, {result.infra_errors} samples lost to failures of ours"
            )
    if not any(m.startswith("pass@") for result in results.values() for m in result.measures):
        lines.append("No problem has tests: compiling was measured, correctness was not.")
    return lines


def estimates_table(models: Estimates, differences: Estimates) -> list[str]:
    """One row a measure, one column a model; below it the differences, in percentage points."""
    found_in = dict.fromkeys(m for found in models.values() for m in found)
    measures = [m for m in found_in if m != "compile@1"]  # that is the compile rate

    def rows(title: str, columns: Estimates, shown: Callable[[Estimate], str]) -> list[list[str]]:
        body = [
            [m, *(shown(found[m]) if m in found else "not measured" for found in columns.values())]
            for m in measures
        ]
        return [[title, *(name.replace("_minus_", " - ") for name in columns)], *body]

    lines = columns(rows("measure", models, str))
    if differences:
        lines += ["", *columns(rows("paired difference", differences, signed))]
    return lines


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their cells aligned, a line of dashes below the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def scores_table(found: Scores) -> str:
    """Outcomes with their counts and rewards; failures of ours, sandbox and toolchains below."""
    scored = found.outcomes.total() - found.outcomes[Outcome.INFRA_ERROR]
    rows = [
        [outcome, str(count), f"{count / scored:.1%}", f"{found.rewards[outcome] / count:.2f}"]
        for outcome, count in found.outcomes.most_common()
        if outcome != Outcome.INFRA_ERROR
    ]
    lines = columns([["outcome", "samples", "share", "reward"], *rows])
    mean = f", mean reward {found.rewards.total() / scored:.3f}" if scored else ""
    lines += ["", f"{scored} samples scored{mean}"]
    if found.lost:
        lines.append(
            f"INCOMPLETE: {found.lost} samples lost to failures of ours (infra_error); the same "
            "command judges them again"
        )
    lines.append(f"sandbox: {_counted(found.tiers)}; toolchains: {_counted(found.toolchains)}")
    return "\n".join(lines)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common() if count) or "none"


def proofs_table(proofs: Sequence[Proof]) -> str:
    """One row a reference solution that is not proven right."""
    rows = [
        [
            proof.problem.problem_id,
            proof.language,
            proof.verdict.outcome,
            "".join(proof.verdict.diagnostics.splitlines()[:1]),
        ]
        for proof in proofs
    ]
    return "\n".join(columns([["problem", "language", "outcome", "diagnostics"], *rows]))
