"""`halo-forge verify`."""

from pathlib import Path
from typing import Any

import click

from haloforge.cli.options import LOCAL, settings_of, shared_options
from haloforge.cli.output import json_option, show
from haloforge.config import Settings


@click.command("verify")
@click.option("--input", "source", type=LOCAL, help="Samples to score.")
@click.option("--problems", help="Problems that samples name: JSONL, or 'starter'.")
@click.option("--references", help="Problems whose own solutions to judge, instead.")
@click.option(
    "--verifier",
    "verify__verifier",
    help="Toolchain, path.py:Class, or 'cmd:./check.sh {file}'.  [default: auto]",
)
@click.option(
    "--output",
    type=LOCAL,
    help="Verdicts (.parquet); for --references the failing ids (.txt or .jsonl).",
)
@json_option
@shared_options
def verify_command(
    source: Path | None,
    problems: str | None,
    references: str | None,
    output: Path | None,
    as_json: bool,
    fresh: bool,
    **options: Any,
) -> None:
    """Scores stored samples with no model, or proves the judge on the problems' own solutions."""
    settings = settings_of(**options)
    if references is not None and source is None and problems is None:
        _references(settings, references, output, fresh, as_json)
    elif references is None and source is not None and output is not None:
        _samples(settings, source, problems, output, fresh, as_json)
    else:
        raise click.UsageError("give --input and --output, or --references")


def _samples(
    settings: Settings,
    source: Path,
    problems: str | None,
    output: Path,
    fresh: bool,
    as_json: bool,
) -> None:
    from haloforge.report.progress import Report
    from haloforge.report.tables import scores_table
    from haloforge.report.trees import scores_tree
    from haloforge.rescore import plan, rescore, scores
    from haloforge.session import Session

    rescoring = plan(settings, source, problems, output, fresh)
    report = Report()
    if rescoring.found.unused:
        report.say(f"{source}: fields not used: {', '.join(sorted(rescoring.found.unused))}")
    if not rescoring.tested:
        report.say(f"{source}: no problem has tests: compiling is judged, correctness is not")
    if rescoring.complete:
        report.say(f"verify: all {rescoring.found.rows} verdicts are there already")
    else:
        with Session(settings) as session:
            rescore(session, rescoring)
    found = scores(output)
    show(
        as_json,
        lambda: scores_tree(found, output),
        lambda: f"{scores_table(found)}\nVerdicts: {output}",
    )


def _references(
    settings: Settings, source: str, output: Path | None, fresh: bool, as_json: bool
) -> None:
    from haloforge.errors import HaloforgeError, InfraError
    from haloforge.prove import plan_proof, prove, write_failed
    from haloforge.report.tables import proofs_table
    from haloforge.report.trees import proofs_tree
    from haloforge.session import Session

    settings, problems = plan_proof(settings, source, output, fresh)
    with Session(settings) as session:
        proofs = prove(session, problems)
    lost = [proof for proof in proofs if proof.lost]
    failed = [proof for proof in proofs if not proof.holds and not proof.lost]
    if output is not None:
        write_failed(output, failed)

    def told() -> str:
        lines = [proofs_table([*failed, *lost])] if failed or lost else []
        lines.append(f"{len(problems)} problems, {len(proofs)} solutions: {len(failed)} fail")
        lines += [f"Ids of the problems that fail: {output}"] if output is not None else []
        return "\n".join(lines)

    show(as_json, lambda: proofs_tree(len(problems), proofs, output), told)
    if failed:
        raise HaloforgeError(f"{len(failed)} of {len(proofs)} solutions fail their own problem")
    if lost:
        raise InfraError(f"{len(lost)} of {len(proofs)} solutions could not be judged")
