"""A few samples with their code. All of it was written by a model: it is shown, and nothing else.

What leaves here as markup is text that Pygments has escaped; all the rest the template escapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

from haloforge.report.hostile import clipped, decoded, visible
from haloforge.report.page.columns import Counts
from haloforge.report.page.files import Files
from haloforge.schema import Outcome
from haloforge.verify.extract import extract

MOST_CHARACTERS = 4000
PROBLEMS = "problems.parquet"
# Each kind of end is shown once a cycle: the best, how it may go wrong, and our own failures.
WANTED = (
    Outcome.PASSED,
    Outcome.WRONG_ANSWER,
    Outcome.RUNTIME_ERROR,
    Outcome.TIMEOUT,
    Outcome.COMPILED,
    Outcome.COMPILED_WITH_WARNINGS,
    Outcome.COMPILE_ERROR,
    Outcome.NO_CODE,
    Outcome.INFRA_ERROR,
)
_MOST_OF_A_FOLDER = 6
_SAMPLE = ["sample_id", "problem_id", "completion", "finish_reason", "num_tokens"]
_VERDICT = [
    *("sample_id", "outcome", "reward", "tests_passed", "tests_total"),
    *("diagnostics", "toolchain", "sandbox_tier"),
]
_BATCH_ROWS = 256


@dataclass(frozen=True)
class Shown:
    """The beginning of a text, as markup where it is highlighted, and how much more there is."""

    text: str | Markup
    more: int

    def __bool__(self) -> bool:
        return bool(self.text)


@dataclass(frozen=True)
class ShownSample:
    """One sample. `code` is the program that was found in its answer; `answer` is all of it, where
    there is more than that. `prompt` is None where it is not stored."""

    title: str
    outcome: str
    sample_id: str
    problem_id: str
    reward: float | None
    tests: str
    tokens: int | None
    finish: str
    toolchain: str
    tier: str
    prompt: Shown | None
    code: Shown
    answer: Shown
    diagnostics: Shown


def pick_samples(
    files: Files, folders: Sequence[tuple[str, Path, Counts]], language: str | None
) -> list[ShownSample]:
    """Of each titled folder one sample of each outcome that is wanted, six at most."""
    rows: list[tuple[str, dict[str, Any]]] = []
    for title, folder, counts in folders:
        chosen = [o for o in WANTED if o in counts.places][:_MOST_OF_A_FOLDER]
        lost = Outcome.INFRA_ERROR
        if lost in counts.places and lost not in chosen:
            chosen[-1] = lost
        for outcome in chosen:
            place, row = counts.places[outcome]
            found = _row(files, folder, counts.shards[place], row)
            if found:
                rows.append((title, found))
    prompts = _prompts(files, {row["problem_id"] for _, row in rows})
    return [_shown(title, row, prompts.get(row["problem_id"], {}), language) for title, row in rows]


def _row(files: Files, folder: Path, shard: Path, row: int) -> dict[str, Any] | None:
    try:
        sample = _read_row(shard, _SAMPLE, row)
        verdict = _read_row(folder / "verdicts" / shard.name, _VERDICT, row)
    except (OSError, pa.ArrowException) as error:
        files.note(shard, f"a sample cannot be read ({str(error)[:100]})")
        return None
    if not sample or not verdict or sample["sample_id"] != verdict["sample_id"]:
        files.note(shard, "its samples are not those of its verdicts")
        return None
    return {**sample, **verdict}


def _read_row(path: Path, columns: list[str], row: int) -> dict[str, Any] | None:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            if row < batch.num_rows:
                return _values(batch.slice(row, 1))[0]
            row -= batch.num_rows
    return None


def _values(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """Rows, also of what is stored as text and is none."""
    columns = {}
    for name in batch.schema.names:
        column = batch[name]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns[name] = _texts(column)
        else:
            columns[name] = column.to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _texts(column: pa.Array) -> list[str]:
    binary = pa.binary() if pa.types.is_string(column.type) else pa.large_binary()
    return [decoded(value) for value in column.cast(binary).to_pylist()]


def _prompts(files: Files, names: set[str]) -> dict[str, dict[str, Any]]:
    """By problem_id, the rows of these in `problems.parquet`, as far as it is there."""
    path = files.folder / PROBLEMS
    found: dict[str, dict[str, Any]] = {}
    if not path.is_file() or not names:
        return found
    try:
        with pq.ParquetFile(path) as file:
            columns = [c for c in ("problem_id", "prompt", "language") if c in file.schema.names]
            for batch in file.iter_batches(4096, columns=columns):
                for place, name in enumerate(_texts(batch["problem_id"])):
                    if name in names and name not in found:
                        found[name] = _values(batch.slice(place, 1))[0]
                if len(found) == len(names):
                    break
    except (OSError, pa.ArrowException, KeyError) as error:
        files.note(path, f"it cannot be read ({str(error)[:100]})")
    return found


def _shown(
    title: str, row: dict[str, Any], problem: Mapping[str, Any], language: str | None
) -> ShownSample:
    completion = row["completion"]
    wanted = problem.get("language") or language
    found = extract(completion, wanted)
    code = found.code if found else ""
    tag = (found.language if found else None) or wanted
    # A fence around it is no more than the program.
    more = len(completion.strip()) > len(code.strip()) + 40 if code else bool(completion)
    total = row["tests_total"] or 0
    return ShownSample(
        title=title,
        outcome=visible(row["outcome"]),
        sample_id=visible(row["sample_id"]),
        problem_id=visible(row["problem_id"]),
        reward=None if row["outcome"] == Outcome.INFRA_ERROR else row["reward"],
        tests=f"{row['tests_passed']} of {total} passed" if total else "none",
        tokens=row["num_tokens"],
        finish=visible(row["finish_reason"]),
        toolchain=visible(row["toolchain"]),
        tier=visible(row["sandbox_tier"]),
        prompt=plain(problem["prompt"]) if problem.get("prompt") else None,
        code=highlighted(code, tag),
        answer=plain(completion if more else ""),
        diagnostics=plain(row["diagnostics"]),
    )


def plain(text: str) -> Shown:
    """Visible, and not too long."""
    return Shown(*clipped(visible(text.strip("\n")), MOST_CHARACTERS))


def highlighted(code: str, language: str | None) -> Shown:
    """As `plain`, with the words of `language` marked by Pygments' classes."""
    cut = plain(code)
    try:
        lexer = get_lexer_by_name(language or "text", stripnl=False, ensurenl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False, ensurenl=False)
    return Shown(Markup(highlight(cut.text, lexer, _HTML)), cut.more)


_HTML: Any = HtmlFormatter(nowrap=True, classprefix="k-")
