"""Results as text."""

from collections.abc import Mapping

from haloforge.benchmark.measure import Result


def results_table(results: Mapping[str, Result]) -> str:
    """One row a measure, one column a model; below it what each model's samples came to."""
    names = list(results)
    measures = list(dict.fromkeys(m for result in results.values() for m in result.measures))
    cells = [["measure", *names]]
    for measure in measures:
        row = [results[name].measures.get(measure) for name in names]
        cells.append([measure, *(str(e) if e else "not measured" for e in row)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(names) + 1)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
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
        lines.append(f"{name}: {outcomes}")
        if not result.complete:
            lines.append(
                f"{name}: INCOMPLETE, {result.infra_errors} samples lost to failures of ours"
            )
    if not any(measure.startswith("pass@") for measure in measures):
        lines.append("No problem has tests: compiling was measured, correctness was not.")
    return "\n".join(lines)
