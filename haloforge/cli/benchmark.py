"""`halo-forge benchmark`."""

from pathlib import Path
from typing import Any

import click

from haloforge.cli.options import integers, settings_of, shared_options


@click.group("benchmark")
def benchmark_group() -> None:
    """Measuring how often a model's programs compile and pass."""


@benchmark_group.command("run")
@click.option("--model", "model", help="Adapter folder, base folder, or Hugging Face id.")
@click.option("--prompts", "benchmark__prompts", help="Problems.  [default: starter/test]")
@click.option("--verifier", "verify__verifier", help="Toolchain that judges.  [default: auto]")
@click.option("--samples", "benchmark__samples", type=int, help="Per problem.  [default: 10]")
@click.option("--k", "benchmark__k", callback=integers, help="[default: 1,5,10]")
@click.option("--temperature", "benchmark__temperature", type=float, help="[default: 0.7]")
@click.option("--max-tokens", "rollout__max_tokens", type=int, help="[default: 1024]")
@click.option("--output", type=click.Path(path_type=Path), help="[default: beside the model]")
@shared_options
def run(output: Path | None, fresh: bool, **options: Any) -> None:
    """compile@k and pass@k with 95% intervals; greedy where --samples is 1."""
    settings = settings_of(**options)
    from haloforge.preflight import check_benchmark

    check_benchmark(settings)
    from haloforge.benchmark.measure import benchmark, benchmark_sampling, default_output
    from haloforge.report.tables import results_table
    from haloforge.session import Session

    with Session(settings) as session:
        policy = session.policy(None)
        folder = output or default_output(policy)
        chosen, sampling = settings.benchmark, benchmark_sampling(settings)
        session.report.say(
            f"benchmark: {chosen.prompts}, {chosen.samples} samples a problem, "
            f"k {','.join(map(str, chosen.k))}, temperature {sampling.temperature:g}, "
            f"at most {sampling.max_tokens} tokens, into {folder}"
        )
        result = benchmark(session, policy, folder, fresh)
    click.echo(results_table({policy.name: result}))
    click.echo(f"Samples, verdicts and results.json: {folder}")


@benchmark_group.command("eval")
@click.option("--suite", "suites", required=True, help="Names, such as humaneval,mbpp.")
@click.option(
    "--prompt-style",
    "benchmark__prompt_style",
    type=click.Choice(["auto", "instruct", "base"]),
    help="[default: auto, by the model's chat template]",
)
@click.option("--data", "benchmark__data_dir", help="[default: ~/.cache/haloforge/suites]")
@click.option("--from-date", "benchmark__from_date", help="Of LiveCodeBench, as 2024-09-01.")
@click.option("--to-date", "benchmark__to_date", help="The last day of it.")
@click.option("--model", "model", help="Adapter folder, base folder, or Hugging Face id.")
@click.option("--samples", "benchmark__samples", type=int, help="Per problem.  [default: 10]")
@click.option("--k", "benchmark__k", callback=integers, help="[default: 1,5,10]")
@click.option("--temperature", "benchmark__temperature", type=float, help="[default: 0.7]")
@click.option("--max-tokens", "rollout__max_tokens", type=int, help="[default: 1024]")
@click.option("--limit", "benchmark__limit", type=int, help="Of each suite.  [default: all]")
@click.option("--output", type=click.Path(path_type=Path), help="[default: beside the model]")
@shared_options
def evaluate(suites: str, output: Path | None, fresh: bool, **options: Any) -> None:
    """`run` on suites that others know, with one engine start."""
    settings = settings_of(**options)
    from haloforge.benchmark.measure import benchmark, suites_output
    from haloforge.preflight import check_suites
    from haloforge.report.tables import results_table
    from haloforge.session import Session

    chosen = check_suites(settings, suites.split(","))
    with Session(settings) as session:
        policy = session.policy(None)
        root = output or suites_output(policy)
        results = {
            name: benchmark(session, policy, root / name, fresh, of_suite)
            for name, of_suite in chosen.items()
        }
    for name, result in results.items():
        click.echo(f"\n{name}, prompt style {result.settings['suite']['prompt_style']}")
        click.echo(results_table({policy.name: result}))
        click.echo(f"Samples, verdicts and results.json: {root / name}")
