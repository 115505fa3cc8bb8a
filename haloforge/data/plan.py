"""What `data prepare` is to write of a source and where, and what it refuses to replace."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haloforge.data.catalogue import Entry, entries
from haloforge.data.lines import Purpose
from haloforge.data.problems import DEFAULT_LANGUAGE, LANGUAGES, is_answered
from haloforge.data.sidecar import Sidecar, read_sidecar
from haloforge.data.sources import Source
from haloforge.data.streams import read_file
from haloforge.errors import InputError
from haloforge.store.storage import HUB

TEST_FILE = "test.jsonl"
_DRAWN = ("seed", "test_fraction", "language", "files", "allow_test_data")
"""What decides which rows are held out."""


@dataclass(frozen=True)
class Plan:
    """What to write of a source, and where. `output` is not the held-out file's name, unless
    nothing is held out."""

    source: Source
    output: Path
    purpose: Purpose
    language: str | None = None
    template: str | None = None
    test_fraction: float = 0.1
    seed: int = 0
    keep_all: bool = False

    @property
    def test_output(self) -> Path:
        return self.output.with_name(TEST_FILE)

    def choices(self, own_tests: bool) -> dict[str, Any]:
        """What a sidecar tells of what was chosen, where the source has tests of its own or not."""
        source = self.source
        told = {
            "for": self.purpose,
            "language": self.language,
            "chat_template": self.template,
            "test_fraction": None if self.keep_all or own_tests else self.test_fraction,
            "files": [file.removeprefix(source.base) for file in source.files],
            "allow_test_data": source.allow_test_data,
        }
        return {name: value for name, value in told.items() if value not in (None, False)}


def catalogue() -> list[dict[str, str]]:
    """One row a data set that `--dataset` knows by name."""
    return [_listed(entry) for entry in entries().values()]


def _listed(entry: Entry) -> dict[str, str]:
    counts = ", ".join(
        f"{split.rows if split.rows is not None else 'not counted'} {name}"
        for name, split in entry.splits.items()
    )
    listed = {
        "name": entry.name,
        "origin": str(entry.origin),
        "licence": entry.licence,
        "languages": ", ".join(entry.languages),
        "rows": f"{counts} ({entry.rows_source})" if entry.rows_source else counts,
        "uses": ", ".join(entry.uses),
        "tests": entry.tests or "none",
    }
    return listed | ({"about": entry.about} if entry.about else {})


def plan(
    source: Source,
    output: Path,
    purpose: Purpose | None = None,
    language: str | None = None,
    **choices: Any,
) -> Plan:
    """The plan for `source`, with what is not said decided: the purpose by the set's entry, by the
    fields that are mapped, or by the first row of a file of one's own; the language of the bundled
    set. Raises InputError for a purpose that the set cannot serve, and where an output would
    replace what is read."""
    if language is not None and language not in LANGUAGES:
        raise InputError(f"unknown language '{language}'; known: {', '.join(LANGUAGES)}")
    if source.bundled:
        language = language or DEFAULT_LANGUAGE
    uses = source.entry.uses if source.entry is not None else ["sft", "problems"]
    if purpose is None:
        first = uses[0] if source.entry is not None else _purpose_of(source.files[0])
        purpose = "sft" if first == "sft" else "problems"
    elif purpose not in uses and uses != ["benchmark"]:
        raise InputError(f"{source.label}: --for {purpose}: the set serves {', '.join(uses)} only")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give the name of a file in it")
    planned = Plan(source, output, purpose, language, **choices)
    if output == planned.test_output and not planned.keep_all:
        raise InputError(f"{output}: the held-out part would replace it; choose another name")
    if planned.template is not None and purpose == "problems":
        raise InputError("--model: problems hold no chat text; its template is for --for sft")
    files = (*source.files, *source.test_files)
    read = {Path(file).resolve() for file in files}
    for path in (output, planned.test_output):
        if path.resolve() in read:
            raise InputError(f"{path}: it is among what is read; choose another folder")
    _check_replaced(planned)
    return planned


def _check_replaced(planned: Plan) -> None:
    """Raises InputError where what is held out would replace what an earlier run on the same set
    did not write, or what another file there was kept apart from."""
    source, path = planned.source, planned.test_output
    own_tests = source.bundled or source.test_files
    if planned.keep_all or not (own_tests or planned.test_fraction) or not path.exists():
        return
    sidecar = read_sidecar(path)
    if sidecar is None or _apart_from_commit(sidecar.origin) != _apart_from_commit(source.origin):
        raise InputError(f"{path}: is there, and not held out of this set; choose another folder")
    if own_tests:  # whatever is drawn, held out are these
        return
    now = {**planned.choices(own_tests=False), "seed": planned.seed}
    for beside in sorted(path.parent.glob("*.meta.json")):
        name = beside.name.removesuffix(".meta.json")
        if name in (path.name, planned.output.name) or not path.with_name(name).exists():
            continue
        for before in _trained(beside, source):
            changed = [key for key in _DRAWN if before.get(key) != now.get(key)]
            if changed:
                raise InputError(
                    f"{path}: is what {name} was kept apart from, by another choice of "
                    f"{', '.join(changed)}; choose another folder"
                )


def _trained(beside: Path, source: Source) -> Iterator[dict[str, Any]]:
    """The choices by which the training part of `source` was drawn that a file is, or is made of,
    by what stands beside it: none where that is nothing of ours."""
    try:
        left = [Sidecar.model_validate_json(beside.read_text())]
    except (OSError, ValueError):
        return
    while left:
        each = left.pop()
        left += each.parents
        of = _apart_from_commit(each.origin) == _apart_from_commit(source.origin)
        if of and each.filters.get("part") == "train" and "for" in each.filters:
            yield {**each.filters, "seed": each.seed}


def _apart_from_commit(origin: str) -> str:
    return re.sub(f"^({HUB}[^@]*)@[0-9a-f]{{40}}", r"\1", origin)


def _purpose_of(file: str) -> Purpose:
    """What the first row of a file is."""
    for _, text in read_file(file):
        try:
            row = json.loads(text)
        except (RecursionError, ValueError):
            break  # told, with its place, where rows are read
        if isinstance(row, dict):
            told = any(row.get(name) is not None for name in ("text", "answer"))
            return "sft" if told or is_answered(row.get("messages")) else "problems"
        break
    return "problems"
