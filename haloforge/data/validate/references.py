"""Problems' own solutions against their own tests, by the fleet that judges samples."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from haloforge.data.jsonl import json_object
from haloforge.data.problems import parse_problem
from haloforge.data.streams import read_file
from haloforge.data.validate.found import Found
from haloforge.data.validate.rows import Kind
from haloforge.sampling import judged_rows
from haloforge.schema import Outcome
from haloforge.session import Session
from haloforge.verify.references import reference_samples, reference_settings
from haloforge.verify.stored import StoredSamples

_HOLDS = {Outcome.PASSED, Outcome.COMPILED, Outcome.COMPILED_WITH_WARNINGS}
"""A reference that has tests to pass never ends as one that compiled."""


def judge_references(session: Session, files: Sequence[str], found: Found) -> int:
    """Judges the references of all rows that are good so far, notes in `found` which fail, and
    returns how many there were. Problems are read as they are judged, none is held."""
    wanted = (found.facts["references"] > 0) & ~found.bad
    total = int(found.facts["references"][wanted].sum(dtype=np.int64))
    if not total:
        return 0
    settings, fleet = reference_settings(session.settings.verify), session.fleet
    stored = StoredSamples(partial(_samples, tuple(files), wanted), fleet.max_actors)
    with session.report.stage("references", total, "solutions") as stage:
        for sample, verdict in judged_rows(
            settings, fleet, stored.dataset(), ray.put({}), "references"
        ):
            stored.judged()
            stage.advance()
            outcome = Outcome(verdict["outcome"])
            if outcome in _HOLDS:
                continue
            kind = Kind.UNJUDGED if outcome is Outcome.INFRA_ERROR else Kind.REFERENCE
            why = "".join(verdict["diagnostics"].splitlines()[:1])
            language = sample["sample_id"].rpartition("/")[2]
            told = f"problem {verdict['problem_id']}, reference in {language}: {outcome}"
            found.judge(kind, sample["index"], f"{told} ({why})" if why else told)
    return total


def _samples(files: Sequence[str], wanted: npt.NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    """The references of the rows that are `wanted`, rows of STORED_SCHEMA; `index` is the row's."""
    rows = chain.from_iterable(read_file(file) for file in files)
    for number, (place, line) in enumerate(rows):
        if not wanted[number]:
            continue
        row = json_object(line, place)
        problem = parse_problem({k: v for k, v in row.items() if v is not None}, place)
        variants, samples = reference_samples([problem])
        for sample in samples:
            variant = variants[sample["sample_id"]]
            yield {
                "sample_id": f"{number}/{variant.language}",
                "problem_id": problem.problem_id,
                "index": number,
                "code": sample["code"],
                "problem": variant.model_dump_json(exclude={"reference"}, exclude_defaults=True),
            }
