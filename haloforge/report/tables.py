"""Results as text."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from haloforge.benchmark.measure import Result
from haloforge.benchmark.passk import Estimate
from haloforge.prove import Proof
from haloforge.report.summary import Estimates, paired_differences
from haloforge.rescore import Scores
from haloforge.schema import Outcome


def results_table(results: Mapping[str, Result]) -> str:
    """One row a measure, one column a model; paired differences; what the samples came to."""
    lines = estimates_table(
        {name: result.measures for name, result in results.items()}, paired_differences(results)
    )
    first = next(iter(results.values()))
    lines.append("")
    lines.append(
        f"{first.problems} problems, {first.samples} samples each, temperature "
        f"{first.settings['temperature']:g}; mean over problems [95% interval by bootstrap]"
    )
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
    return "\n".join(lines)


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

    lines = _columns(rows("measure", models, str))
    if differences:
        lines += ["", *_columns(rows("paired difference", differences, signed))]
    return lines


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
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
    lost = found.outcomes[Outcome.INFRA_ERROR]
    scored = found.outcomes.total() - lost
    rows = [
        [outcome, str(count), f"{count / scored:.1%}", f"{found.rewards[outcome] / count:.2f}"]
        for outcome, count in found.outcomes.most_common()
        if outcome != Outcome.INFRA_ERROR
    ]
    lines = _columns([["outcome", "samples", "share", "reward"], *rows])
    mean = f", mean reward {found.rewards.total() / scored:.3f}" if scored else ""
    lines += ["", f"{scored} samples scored{mean}"]
    if lost:
        lines.append(
            f"INCOMPLETE: {lost} samples lost to failures of ours (infra_error); the same command "
            "judges them again"
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
    return "\n".join(_columns([["problem", "language", "outcome", "diagnostics"], *rows]))


def signed(estimate: Estimate) -> str:
    """A difference in percentage points."""
    mean, low, high = (100 * x for x in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
