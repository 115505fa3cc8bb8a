"""`halo-forge data split`, `data show` and `data prompts`."""

from pathlib import Path
from typing import Any

import click

from haloforge.cli.options import LOCAL, settings_of, settings_options
from haloforge.cli.output import json_option, show


@click.command("split")
@click.argument("file")
@click.option("--output", required=True, type=LOCAL, help="Folder to write.")
@click.option(
    "--parts",
    default="train=0.8,validation=0.1,test=0.1",
    show_default=True,
    help="Names and shares of the parts.",
)
@click.option("--seed", type=int, help="[default: 0]")
@json_option
@settings_options
def split_command(file: str, output: Path, parts: str, as_json: bool, **options: Any) -> None:
    """FILE in parts; rows of a prompt, a problem or a group stay together.

    Each difficulty is shared out alike. Lines are written as they are, in their order; which part
    one is in depends on the seed and not on that order.
    """
    from haloforge.data.split import parse_parts, split

    shares = parse_parts(parts)
    settings = settings_of(**options)
    from haloforge.report.data_trees import parts_tree
    from haloforge.report.rows import print_parts, rows_console
    from haloforge.session import Session

    with Session(settings) as session:
        done = split(file, output, shares, settings.seed, session.report)

    def told() -> str:
        print_parts(rows_console(), done)
        return "\n".join(f"{part.path}: {part.rows} rows" for part in done)

    show(as_json, lambda: parts_tree(done), told)


@click.command("show")
@click.argument("file")
@click.option("--rows", default=3, show_default=True, type=click.IntRange(1, 1000))
@click.option("--seed", type=int, help="Which rows.  [default: 0]")
@click.option("--model", help="Whose tokens to count.  [default: those of the bundled model]")
@json_option
@settings_options
def show_command(file: str, rows: int, as_json: bool, **options: Any) -> None:
    """A few rows of FILE to read, and distributions of all of them, or of a sample.

    Nothing of a row is run.
    """
    settings = settings_of(**options)
    from haloforge.data.show import show as look_at
    from haloforge.errors import ResourceError
    from haloforge.model.bases import BUNDLED, Base
    from haloforge.model.policy import resolve_policy
    from haloforge.report.data_trees import shown_tree
    from haloforge.report.rows import print_shown, rows_console
    from haloforge.session import Session

    with Session(settings) as session:
        base: Base | None = None
        try:
            base = resolve_policy(settings.model or BUNDLED).base
        except ResourceError as error:
            if settings.model is not None:
                raise
            session.report.say(f"characters are counted, not tokens: {error}")
        shown = look_at(file, rows, settings.seed, base, session.report)
    show(as_json, lambda: shown_tree(shown), lambda: print_shown(rows_console(), shown))


@click.command("prompts")
@click.argument("file")
@click.option("--output", required=True, type=LOCAL, help="JSONL to write.")
@click.option("--limit", type=click.IntRange(min=1), help="Of the prompts.  [default: all]")
@json_option
@settings_options
def prompts_command(
    file: str, output: Path, limit: int | None, as_json: bool, **options: Any
) -> None:
    """The problems that the rows of FILE ask, each prompt once, for RAFT and benchmarks.

    Tests, language, difficulty, group and the like are kept where rows have them.
    """
    settings = settings_of(**options)
    from haloforge.data.problems import UNTESTED
    from haloforge.data.prompts import write_prompts
    from haloforge.report.data_trees import prompts_tree
    from haloforge.session import Session

    with Session(settings) as session:
        done = write_prompts(file, output, limit, session.report)
    told = f"{output}: {done.written} prompts of {done.read} rows, {done.tested} with tests"
    if not done.tested:
        told += f"\n{UNTESTED}"
    elif done.tested < done.written:
        untested = done.written - done.tested
        told += f"\n{untested} have no tests: of those only compiling is judged"
    show(as_json, lambda: prompts_tree(output, done), lambda: told)
