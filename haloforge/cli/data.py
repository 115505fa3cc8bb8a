"""`halo-forge data`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haloforge.cli.data_generate import generate_command
from haloforge.cli.data_tools import prompts_command, show_command, split_command
from haloforge.cli.options import LOCAL, settings_of, settings_options
from haloforge.cli.output import json_option, show

if TYPE_CHECKING:
    from haloforge.data.prepare import Prepared


@click.group("data")
def data_group() -> None:
    """Rows that train, and problems to solve."""


for tool in (generate_command, split_command, show_command, prompts_command):
    data_group.add_command(tool)


def field_map(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """`field=column`, repeated, as a mapping."""
    pairs = [value.partition("=") for value in values]
    for value, (name, _, column) in zip(values, pairs, strict=True):
        if not name or not column:
            raise click.BadParameter(f"expected field=column, found {value!r}")
    return {name: column for name, _, column in pairs}


@data_group.command("prepare")
@click.option("--list", "listing", is_flag=True, help="Show the known data sets.")
@click.option("--dataset", help="A name from --list, rows of your own, or an entry in YAML.")
@click.option("--from", "copy", help="A copy of the named set: file, folder, s3:// or gs://.")
@click.option("--output", type=LOCAL, help="JSONL to write.")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["sft", "problems"]),
    help="Rows that train, or problems.  [default: what the data set is]",
)
@click.option(
    "--map",
    "fields",
    multiple=True,
    metavar="FIELD=COLUMN",
    callback=field_map,
    help="A column of your own rows, such as prompt=question.",
)
@click.option("--language", help="c, cpp or python, for problems that name none.")
@click.option("--model", "model", help="Render 'text' by this model's chat template, not ChatML.")
@click.option(
    "--test-fraction", default=0.1, show_default=True, type=click.FloatRange(0, 1, max_open=True)
)
@click.option("--seed", default=0, show_default=True)
@click.option("--no-test", "keep_all", is_flag=True, help="Hold nothing out.")
@click.option("--allow-test-data", is_flag=True, help="Take rows of a test set.")
@json_option
@settings_options
def prepare_command(
    listing: bool,
    dataset: str | None,
    copy: str | None,
    output: Path | None,
    fields: dict[str, str],
    allow_test_data: bool,
    model: str | None,
    as_json: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    address: str | None,
    **choices: Any,
) -> None:
    """Writes a data set to OUTPUT and held-out problems to test.jsonl beside it.

    What was read, and what was left out and why, stands in OUTPUT.meta.json.
    """
    from haloforge.data.plan import catalogue, plan
    from haloforge.data.prepare import prepare
    from haloforge.data.sources import find_source
    from haloforge.report.progress import Report

    if listing:
        from haloforge.report.data_trees import catalogue_tree

        rows = ("\n".join(f"{key}: {value}" for key, value in row.items()) for row in catalogue())
        show(as_json, catalogue_tree, lambda: "\n\n".join(rows))
        return
    if dataset is None or output is None:
        raise click.UsageError("give --dataset and --output (or --list)")
    settings = settings_of(config, assignments, address)
    source = find_source(dataset, copy, fields, allow_test_data)
    planned = plan(source, output, template=_template(model), **choices)
    if source.bundled:
        done = prepare(planned, Report())
    else:
        from haloforge.session import Session

        with Session(settings) as session:
            done = prepare(planned, session.report)
    from haloforge.report.data_trees import prepared_tree

    show(as_json, lambda: prepared_tree(done), lambda: _told(done))


def _template(model: str | None) -> str | None:
    """The folder of the model's tokenizer; None, which is said, where that has no template."""
    if model is None:
        return None
    from transformers import AutoTokenizer

    from haloforge.model.policy import resolve_policy

    folder = str(resolve_policy(model).base.path)
    if AutoTokenizer.from_pretrained(folder).chat_template:
        return folder
    click.echo(f"{model}: its tokenizer has no chat template, so text is ChatML", err=True)
    return None


def _told(done: "Prepared") -> str:
    from haloforge.data.plan import TEST_FILE

    what = "conversations" if done.purpose == "sft" else "problems"
    lines = [f"{done.output}: {done.rows} {what} of {done.read} rows"]
    lines += [f"  {count} not there: {reason}" for reason, count in done.left_out.items()]
    if done.test_output:
        lines.append(f"{done.test_output}: {done.test_rows} problems held out")
    elif (other := done.output.with_name(TEST_FILE)).exists():
        lines.append(f"{other}: of another run; this one holds nothing out")
    return "\n".join(lines)


@data_group.command("validate")
@click.argument("files", nargs=-1, required=True)
@click.option("--report", type=LOCAL, help="Write what is found as JSON.")
@click.option(
    "--fix",
    type=LOCAL,
    help="Write the good rows there, the others to NAME.rejected.jsonl beside it.",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["sft", "problems"]),
    help="What all rows should be.  [default: what each looks like]",
)
@click.option("--model", help="Whose tokens are counted.  [default: the bundled one]")
@click.option("--max-tokens", type=click.IntRange(1), help="A longer row is wrong.")
@click.option("--max-length", type=click.IntRange(1), help="Of longer rows the share is told.")
@click.option(
    "--similar",
    type=click.FloatRange(0, 1, min_open=True),
    help="Jaccard similarity of near duplicates.",
)
@click.option("--against", multiple=True, help="A benchmark of your own; may be repeated.")
@click.option(
    "--overlap",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of a benchmark prompt's 8-grams that makes a row contaminated.",
)
@click.option("--no-contamination", is_flag=True, help="Compare with no benchmark.")
@click.option("--no-references", is_flag=True, help="Judge no reference by its tests.")
@click.option("--listed", type=click.IntRange(0), help="Rows of each kind named in the report.")
@json_option
@settings_options
def validate_command(
    files: tuple[str, ...],
    report: Path | None,
    fix: Path | None,
    model: str | None,
    against: tuple[str, ...],
    no_contamination: bool,
    no_references: bool,
    as_json: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    address: str | None,
    **limits: Any,
) -> None:
    """Checks rows that train, or problems. Exits with 1 where rows are wrong.

    Near duplicates and references that could not be judged are warnings: their rows stay good.
    """
    from haloforge.data.validate.fix import check_outputs
    from haloforge.data.validate.report import print_findings, write_report
    from haloforge.data.validate.validate import Rules, files_of, validate
    from haloforge.errors import HaloforgeError
    from haloforge.session import Session

    settings = settings_of(config, assignments, address, model=model)
    if against and no_contamination:
        raise click.UsageError("--against needs the comparison that --no-contamination leaves out")
    given = {name: value for name, value in limits.items() if value is not None}
    rules = Rules(contamination=not no_contamination, references=not no_references, **given)
    read = files_of(files)
    check_outputs(read, against, fix, report)
    with Session(settings) as session:
        found = validate(session, read, rules, settings.model, against, fix)
    show(as_json, lambda: found, lambda: print_findings(found))
    if report is not None:
        write_report(report, found)
    if found["wrong"]:
        raise HaloforgeError(f"{found['wrong']} of {found['rows']} rows are wrong")
