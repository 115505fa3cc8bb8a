"""`halo-forge benchmark`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from haloforge.cli.options import LOCAL, integers, settings_of, shared_options
from haloforge.cli.output import json_option, show

if TYPE_CHECKING:
    from haloforge.benchmark.results import Result
    from haloforge.config import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])
_OPTIONS = (
    click.option(
        "--model",
        "models",
        multiple=True,
        help="Adapter folder, base folder, or Hugging Face id; may be repeated.",
    ),
    click.option("--verifier", "verify__verifier", help="Toolchain that judges.  [default: auto]"),
    click.option("--samples", "benchmark__samples", type=int, help="Per problem.  [default: 10]"),
    click.option("--k", "benchmark__k", callback=integers, help="[default: 1,5,10, or fewer]"),
    click.option("--temperature", "benchmark__temperature", type=float, help="[default: 0.7]"),
    click.option("--max-tokens", "rollout__max_tokens", type=int, help="[default: 1024]"),
    click.option("--output", help="Folder, here or s3://, gs://.  [default: beside the model]"),
    click.option("--limit", "benchmark__limit", type=int, help="Of the problems.  [default: all]"),
    click.option(
        "--prompt-style",
        "benchmark__prompt_style",
        type=click.Choice(["auto", "instruct", "base"]),
        help="How suites ask.  [default: auto, by the model's chat template]",
    ),
    click.option(
        "--data",
        "benchmark__data_dir",
        help="Folder of the suites' data.  [default: ~/.cache/haloforge/suites]",
    ),
    click.option("--from-date", "benchmark__from_date", help="Of LiveCodeBench: as 2024-09-01."),
    click.option("--to-date", "benchmark__to_date", help="Of LiveCodeBench: the last day."),
    json_option,
    shared_options,
)


def measure_options(command: _Command) -> _Command:
    """What `run` and `eval` take alike."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group("benchmark")
def benchmark_group() -> None:
    """Measuring how often a model's programs compile and pass."""


@benchmark_group.command("run")
@click.option("--prompts", "benchmark__prompts", help="Or suite/NAME.  [default: starter/test]")
@measure_options
def run(
    models: tuple[str, ...], output: str | None, as_json: bool, fresh: bool, **options: Any
) -> None:
    """compile@k and pass@k with 95% intervals; greedy where --samples is 1.

    Several models are each measured into a folder of their own (below --output where that is
    given) and compared to the first; those of one base share its running engines.
    """
    settings = settings_of(model=models[0] if models else None, **options)
    from haloforge.preflight import check_benchmark

    check_benchmark(settings, models)
    from haloforge.benchmark.measure import benchmark_all, output_folders
    from haloforge.session import Session
    from haloforge.store.remote import run_folder

    place = run_folder(output) if output else None
    with Session(settings) as session:
        policies = [session.policy(name) for name in models or [None]]
        folders = output_folders(policies, place)
        session.report.say(_plan(settings, folders))
        results = benchmark_all(session, policies, folders, fresh)
    from haloforge.report.trees import measured_tree

    show(as_json, lambda: measured_tree(results, folders), lambda: _told(results, folders))


@benchmark_group.command("eval")
@click.option("--suite", "suites", required=True, help="Names, such as humaneval,mbpp.")
@measure_options
def evaluate(
    suites: str,
    models: tuple[str, ...],
    output: str | None,
    as_json: bool,
    fresh: bool,
    **options: Any,
) -> None:
    """`run` on suites that others know, with one engine start for models of one base."""
    settings = settings_of(model=models[0] if models else None, **options)
    from haloforge.preflight import check_suites

    chosen = check_suites(settings, suites.split(","), models)
    from haloforge.benchmark.measure import benchmark_all, output_folders
    from haloforge.session import Session
    from haloforge.store.remote import run_folder

    measured = []
    place = run_folder(output) if output else None
    with Session(settings) as session:
        policies = [session.policy(name) for name in models or [None]]
        for suite, of_suite in chosen.items():
            folders = output_folders(policies, place, suite)
            session.report.say(_plan(of_suite, folders))
            results = benchmark_all(session, policies, folders, fresh, of_suite)
            measured.append((suite, results, folders))
    from haloforge.report.trees import measured_tree

    def told(suite: str, results: "dict[str, Result]", folders: dict[str, Path]) -> str:
        first = next(iter(results.values())).settings.suite or {}
        return f"\n{suite}, prompt style {first.get('prompt_style')}\n{_told(results, folders)}"

    show(
        as_json,
        lambda: {"suites": {name: measured_tree(results, at) for name, results, at in measured}},
        lambda: "\n".join(told(*each) for each in measured),
    )


def _plan(settings: "Settings", folders: Mapping[str, Path]) -> str:
    """What is about to be measured, how and into where."""
    from haloforge.benchmark.scoring import benchmark_sampling
    from haloforge.store.remote import shown

    chosen, sampling = settings.benchmark, benchmark_sampling(settings)
    return (
        f"benchmark: {chosen.prompts}, {chosen.samples} samples a problem, "
        f"k {','.join(map(str, chosen.k))}, temperature {sampling.temperature:g}, "
        f"at most {sampling.max_tokens} tokens, into {', '.join(map(shown, folders.values()))}"
    )


@benchmark_group.command("compare")
@click.argument("results", nargs=-1, required=True, type=LOCAL)
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "json"]),
    default="terminal",
    show_default=True,
)
@click.option("--output", type=LOCAL, help="A file, in place of the terminal.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def compare_command(
    results: tuple[Path, ...], form: str, output: Path | None, as_json: bool
) -> None:
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
    text = shown["json" if as_json else form](compare(read_results(results)))
    if output is None:
        click.echo(text)
    else:
        write_atomic(output, f"{text}\n")
        show(as_json, lambda: {"output": output}, lambda: f"Comparison: {output}")


def _told(results: "dict[str, Result]", folders: dict[str, Path]) -> str:
    """The table of one model, or the comparison of several, and where everything is."""
    from haloforge.benchmark.compare import compare
    from haloforge.report.tables import comparison_table, results_table
    from haloforge.store.remote import shown

    several = len(results) > 1
    table = comparison_table(compare(results)) if several else results_table(results)
    where = (f"Samples, verdicts and results.json: {shown(folder)}" for folder in folders.values())
    return "\n".join([table, *where])
