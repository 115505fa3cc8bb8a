"""`data validate`: all rows looked at, each by itself and beside others."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from haloforge.data.sidecar import lineage
from haloforge.data.streams import drain, list_files, read_rows, with_progress
from haloforge.data.validate.benchmarks import AtHand, at_hand
from haloforge.data.validate.contamination import OVERLAP, index_of
from haloforge.data.validate.duplicates import SIMILAR
from haloforge.data.validate.fix import origin_of, write_apart
from haloforge.data.validate.found import Found
from haloforge.data.validate.references import judge_references
from haloforge.data.validate.report import Findings, findings
from haloforge.data.validate.rows import Purpose
from haloforge.data.validate.stage import BATCH, MAX_FILES, Checks
from haloforge.errors import InputError
from haloforge.model.bases import BUNDLED
from haloforge.model.policy import resolve_policy
from haloforge.session import Session

_STAGE_CPUS = 0.95  # a core each, and room for the reading beside them


@dataclass(frozen=True)
class Rules:
    """What rows are looked at for.

    `purpose` is what all should be (None: each what it looks like). Rows of more than `max_tokens`
    are wrong; how many exceed `max_length`, what a trainer reads, is told. `similar` is the Jaccard
    similarity of near duplicates, `overlap` the share of a benchmark prompt's 8-grams that makes a
    row suspect. `listed` rows of each kind are named in the report.
    """

    purpose: Purpose | None = None
    max_tokens: int = 32_768
    max_length: int = 2048
    similar: float = SIMILAR
    overlap: float = OVERLAP
    contamination: bool = True
    references: bool = True
    listed: int = 20


def files_of(locations: Sequence[str]) -> list[str]:
    """The files at `locations`, each once. Raises InputError where there is none."""
    files = list(dict.fromkeys(file for place in locations for file in list_files(place)))
    if len(files) > MAX_FILES:
        raise InputError(f"{len(files)} files are more than {MAX_FILES} at a time")
    return files


def validate(
    session: Session,
    files: Sequence[str],
    rules: Rules,
    model: str | None = None,
    against: Sequence[str] = (),
    output: Path | None = None,
) -> Findings:
    """What was found in the rows of `files`, in order; with `output` the good rows are written
    there (see fix.py).

    Tokens are those of `model`, the bundled one by default; rows are compared with the benchmarks
    at hand and with the files `against`. Raises InputError for a file that cannot be read or has no
    row, and what `resolve_policy` raises.
    """
    come_from = lineage(origin_of(files), files) if output is not None else {}
    base = resolve_policy(model or BUNDLED).base
    benchmarks = at_hand(session.settings, against) if rules.contamination else AtHand({}, {})
    index = index_of(benchmarks.tasks) if rules.contamination else None
    tokenizer = session.tokenizer(base)
    checks = Checks(tuple(files), tokenizer, rules.purpose, rules.max_tokens, index, rules.overlap)
    with tempfile.TemporaryDirectory() as folder:
        found = Found(checks.files, Path(folder))
        checked = read_rows(files).map_batches(
            checks, batch_size=BATCH, batch_format="pyarrow", num_cpus=_STAGE_CPUS
        )
        for _ in with_progress(found.read(drain(checked)), files, "validate", session.report):
            pass
        if not len(found):
            raise InputError(f"{', '.join(files)}: no row there")
        # First, so that of two rows alike the one that holds is kept.
        judged = judge_references(session, files, found) if rules.references else None
        found.compare(rules.similar)
        told = findings(found, files, rules, base.name, benchmarks, index, judged)
        if output is not None:
            filters = {k: v for k, v in asdict(rules).items() if k != "listed"}
            filters |= {"model": base.name, "against": list(against)}
            write_apart(output, files, drain(read_rows(files)), found, come_from, filters)
    return told
