"""`halo-forge benchmark`."""

from pathlib import Path
from typing import Any

import click

from haloforge.cli.options import integers, settings_of, shared_options


@click.group("benchmark")
def benchmark_group() -> None:
    """Measuring how often a model's programs compile and pass."""


@benchmark_group.command("run")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Adapter folder, base folder, or Hugging Face id; may be repeated.",
)
@click.option("--prompts", "benchmark__prompts", help="Problems.  [default: starter/test]")
@click.option("--verifier", "verify__verifier", help="Toolchain that judges.  [default: auto]")
@click.option("--samples", "benchmark__samples", type=int, help="Per problem.  [default: 10]")
@click.option("--k", "benchmark__k", callback=integers, help="[default: 1,5,10]")
@click.option("--temperature", "benchmark__temperature", type=float, help="[default: 0.7]")
@click.option("--max-tokens", "rollout__max_tokens", type=int, help="[default: 1024]")
@click.option("--output", type=click.Path(path_type=Path), help="[default: beside the model]")
@shared_options
def run(models: tuple[str, ...], output: Path | None, fresh: bool, **options: Any) -> None:
    """compile@k and pass@k with 95% intervals; greedy where --samples is 1.

    Several models are each measured into a folder of their own (below --output where that is
    given) and compared to the first; those of one base share its running engines.
    """
    settings = settings_of(model=models[0] if models else None, **options)
    from haloforge.preflight import check_benchmark

    check_benchmark(settings, models)
    from haloforge.benchmark.compare import compare
    from haloforge.benchmark.measure import benchmark_all, output_folders
    from haloforge.benchmark.scoring import benchmark_sampling
    from haloforge.report.tables import comparison_table, results_table
    from haloforge.session import Session

    with Session(settings) as session:
        policies = [session.policy(name) for name in models or [None]]
        folders = output_folders(policies, output)
        chosen, sampling = settings.benchmark, benchmark_sampling(settings)
        session.report.say(
            f"benchmark: {chosen.prompts}, {chosen.samples} samples a problem, "
            f"k {','.join(map(str, chosen.k))}, temperature {sampling.temperature:g}, "
            f"at most {sampling.max_tokens} tokens, into {', '.join(map(str, folders.values()))}"
        )
        results = benchmark_all(session, policies, folders, fresh)
    several = len(results) > 1
    click.echo(comparison_table(compare(results)) if several else results_table(results))
    for folder in folders.values():
        click.echo(f"Samples, verdicts and results.json: {folder}")


@benchmark_group.command("compare")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "json"]),
    default="terminal",
    show_default=True,
)
@click.option("--output", type=click.Path(path_type=Path), help="A file, in place of the terminal.")
def compare_command(results: tuple[Path, ...], form: str, output: Path | None) -> None:
    """Paired differences of RESULTS, folders with a results.json, to the first of them."""
    from haloforge.benchmark.compare import compare, read_results
    from haloforge.report.comparison import comparison_json, comparison_markdown
    from haloforge.report.tables import comparison_table
    from haloforge.store.run import write_atomic

    shown = {
        "terminal": comparison_table,
        "markdown": comparison_markdown,
        "json": comparison_json,
    }
    text = shown[form](compare(read_results(results)))
    if output is None:
        click.echo(text)
    else:
        write_atomic(output, f"{text}\n")
        click.echo(f"Comparison: {output}")
