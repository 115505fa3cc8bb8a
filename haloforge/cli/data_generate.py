"""`halo-forge data generate`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import click

from haloforge.cli.options import LOCAL, settings_of, shared_options
from haloforge.cli.output import json_option, show

if TYPE_CHECKING:
    from haloforge.config import Settings
    from haloforge.data.generate.asking import Asked
    from haloforge.data.generate.generate import Plan
    from haloforge.data.generate.keeping import Kept
    from haloforge.data.generate.probes import Judge


@click.command("generate")
@click.option("--list", "listing", is_flag=True, help="Show the known topics and backends.")
@click.option("--topic", help="A name from --list, or a YAML file of your own.")
@click.option("--backend", help="A name from --list, or a URL that speaks as OpenAI's.")
@click.option("--output", type=LOCAL, help="JSONL to write.")
@click.option("--model", "writer", help="Who writes.  [default: the backend's]")
@click.option("--count", type=click.IntRange(1), help="Requests.  [default: the backend's]")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["sft", "problems"]),
    default="sft",
    show_default=True,
    help="Rows that train (and hold their tests), or problems.",
)
@click.option("--dry-run", is_flag=True, help="Say what it will cost, and stop.")
@click.option("--in-flight", type=int, help="Requests at once.  [default: 16]")
@click.option("--requests-per-minute", type=float, help="[default: as many as are answered]")
@click.option("--max-tokens", type=int, help="Tokens to pay for at most, in all.")
@json_option
@shared_options
def generate_command(
    listing: bool,
    topic: str | None,
    backend: str | None,
    output: Path | None,
    writer: str | None,
    count: int | None,
    purpose: Literal["sft", "problems"],
    dry_run: bool,
    in_flight: int | None,
    requests_per_minute: float | None,
    max_tokens: int | None,
    as_json: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    address: str | None,
    fresh: bool,
) -> None:
    """Has an LLM write problems with tests and solutions, and keeps those that hold.

    Each solution must pass its tests in the sandbox. Answers are kept in OUTPUT.answers as they
    come, and none is asked for twice; what is not kept, and why, is in NAME.rejected.jsonl.
    """
    from haloforge.data.generate import generate as command
    from haloforge.data.generate.cost import told
    from haloforge.report.data_trees import cost_tree, generated_tree, listing_tree

    if listing:
        rows = ("\n".join(f"{k}: {v}" for k, v in row.items()) for row in command.listing())
        more = "Or a topic of your own in YAML, and any URL that speaks as OpenAI's."
        show(as_json, listing_tree, lambda: "\n\n".join([*rows, more]))
        return
    if topic is None or backend is None or output is None:
        raise click.UsageError("give --topic, --backend and --output (or --list)")
    flags: dict[str, Any] = {
        "generate__in_flight": in_flight,
        "generate__requests_per_minute": requests_per_minute,
        "generate__max_tokens": max_tokens,
    }
    settings = settings_of(config, assignments, address, **flags)
    planned = command.plan(topic, backend, output, settings, writer, count, purpose, fresh)
    if dry_run:
        cost = command.dry_run(planned, fresh)
        show(as_json, lambda: cost_tree(cost, planned), lambda: told(cost, planned.backend))
        return
    command.check_able(planned)
    from haloforge.report.progress import Report

    signal.signal(signal.SIGTERM, _stop)
    with command.open_answers(planned, fresh) as answers:
        click.echo(told(command.cost_of(planned, answers), planned.backend), err=as_json)
        asked, kept = command.generate(planned, answers, Report(), partial(_judging, settings))
    show(as_json, lambda: generated_tree(planned, asked, kept), lambda: _told(planned, asked, kept))
    _check(planned, asked, kept)


def _stop(signum: int, frame: FrameType | None) -> None:
    """SIGTERM ends it as Ctrl-C does; a session has it so too, but nobody is asked in one."""
    raise KeyboardInterrupt


@contextmanager
def _judging(settings: "Settings") -> "Iterator[Judge]":
    from haloforge.data.validate.references import judge_rows
    from haloforge.session import Session

    with Session(settings) as session:
        yield partial(judge_rows, session)


def _told(planned: "Plan", asked: "Asked", kept: "Kept") -> str:
    from haloforge.data.validate.fix import rejected_path

    what = "conversations" if planned.purpose == "sft" else "problems"
    lines = [f"{planned.output}: {kept.rows} {what} of {kept.read} answers"]
    lines += [f"  {number} not there: {reason}" for reason, number in kept.left_out.most_common()]
    if kept.left_out:
        lines.append(f"{rejected_path(planned.output)}: those, and why")
    if asked.capped:
        lines.append("--max-tokens is reached: the rest was not asked for")
    return "\n".join(lines)


def _check(planned: "Plan", asked: "Asked", kept: "Kept") -> None:
    """Raises InfraError where requests were not answered, HaloforgeError where nothing is kept."""
    from haloforge.errors import HaloforgeError, InfraError

    if asked.given_up:
        raise InfraError(
            f"{asked.given_up} requests were not answered ({asked.why}); the same command asks "
            "for them again"
        )
    if not kept.rows:
        raise HaloforgeError(f"{planned.output}: no answer holds")
