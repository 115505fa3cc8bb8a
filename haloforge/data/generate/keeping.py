"""What of the committed answers is kept: read, judged, told apart, written. No request is sent.

In the order of slots, not of arrival, so that the same answers give the same rows. Answers are
judged before near duplicates are dropped: of two that are alike the one that holds is kept. A
problem whose tests are passed without its solution's help does not hold either (see probes.py).
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from haloforge.data.generate.answers import Answers
from haloforge.data.generate.probes import TRIVIAL, Judge, passed_by_probes
from haloforge.data.generate.reading import Rejected, read_answer
from haloforge.data.generate.slots import Slot, slots
from haloforge.data.generate.topic import Topic
from haloforge.data.jsonl import JsonLines, whole, write_jsonl
from haloforge.data.lines import Purpose, learnt
from haloforge.data.problems import parse_problem
from haloforge.data.sft import reference_conversations, to_chatml
from haloforge.data.sidecar import write_sidecar
from haloforge.data.validate.fix import rejected_path
from haloforge.data.validate.rows import Kind
from haloforge.schema import Problem
from haloforge.store.run import write_atomic

CANDIDATES, PROBES = "candidates.jsonl", "probes.jsonl"
WRITING = "writing"
"""Is in the run's folder while its outputs are written."""
_PERMUTATIONS = 128
_WORD = re.compile(r"\w+")
Judging = Callable[[], AbstractContextManager[Judge]]


@dataclass(frozen=True)
class Wanted:
    """Which answers are looked at, and what is written of them: `count` slots of `topic`, `model`
    (at `url`) and `seed`; rows as similar as `similar` to an earlier one are dropped."""

    topic: Topic
    model: str
    url: str
    seed: int
    count: int
    purpose: Purpose
    similar: float

    @property
    def origin(self) -> str:
        return f"{self.topic.name}, written by {self.model}"

    def slots(self) -> Iterator[Slot]:
        return slots(self.topic, self.model, self.seed, self.count)


@dataclass
class Kept:
    """How many answers were looked at, how many rows were written, and why others were not."""

    read: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def keep(wanted: Wanted, answers: Answers, output: Path, judging: Judging) -> Kept:
    """Writes what is kept to `output`, the others with their reasons beside it (see
    `rejected_path`), each with its sidecar."""
    folder = answers.path.parent
    candidates = folder / CANDIDATES
    rejected, seen = _read(wanted, answers, candidates)
    asked = [slot.request for slot in wanted.slots() if slot.request in answers]
    held = [request for request in asked if request not in rejected]
    if held:
        with judging() as judge:
            rejected |= _judged(candidates, held, judge)
            lines = JsonLines(candidates)
            good = (lines[n] for n, request in enumerate(held) if request not in rejected)
            rejected |= passed_by_probes(map(_problem, good), folder / PROBES, judge)
        rejected |= _alike(candidates, held, rejected, wanted.similar)
    write_atomic(folder / WRITING, "")
    kept = _write(wanted, answers, output, candidates, rejected)
    _describe(wanted, output, kept, seen)
    for path in (candidates, folder / PROBES, folder / WRITING):
        path.unlink(missing_ok=True)
    return kept


def _read(wanted: Wanted, answers: Answers, candidates: Path) -> tuple[dict[str, Rejected], str]:
    """Writes the problems that answers hold to `candidates`; the others by request, with their
    reasons, and a digest of all."""
    rejected: dict[str, Rejected] = {}
    seen = hashlib.sha256()

    def rows() -> Iterator[dict[str, Any]]:
        for slot in wanted.slots():
            if slot.request not in answers:
                continue
            answer = answers.read(slot.request)
            seen.update(f"{answer.request}\0{answer.text!r}\0".encode())
            found = read_answer(answer, slot, wanted.topic, wanted.model)
            if isinstance(found, Rejected):
                rejected[slot.request] = found
            else:
                yield found.model_dump(exclude_defaults=True)

    write_jsonl(candidates, rows())
    return rejected, seen.hexdigest()


def _judged(candidates: Path, held: Sequence[str], judge: Judge) -> dict[str, Rejected]:
    """Those of `held` whose solution does not pass their tests, or could not be judged."""
    failed: dict[str, Rejected] = {}

    def told(kind: Kind, row: int, why: str) -> None:
        failed[held[row]] = Rejected(kind, why)

    judge([str(candidates)], np.ones(len(held), np.int64), told)
    return failed


def _alike(
    candidates: Path, held: Sequence[str], rejected: dict[str, Rejected], threshold: float
) -> dict[str, Rejected]:
    """Those of `held` that are very like an earlier one that is kept, by the estimate of MinHash
    (Broder 1997) of the Jaccard similarity of their word triples; in the order of slots."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    known: dict[str, MinHash] = {}
    repeats: dict[str, Rejected] = {}
    for request, row in zip(held, JsonLines(candidates), strict=True):
        if request in rejected:
            continue
        sketch = MinHash(num_perm=_PERMUTATIONS)
        sketch.update_batch(_triples(_problem(row)))
        alike = [each for each in index.query(sketch) if sketch.jaccard(known[each]) >= threshold]
        if alike:
            first = min(alike, key=held.index)
            repeats[request] = Rejected(Kind.NEAR_DUPLICATE, f"very like problem {first}")
            continue
        known[request] = sketch
        index.insert(request, sketch)
    return repeats


def _triples(problem: Problem) -> list[bytes]:
    """Of all that a row says."""
    text = "\n".join([problem.prompt or "", *problem.reference.values()])
    words = _WORD.findall(text.lower())
    return [" ".join(words[n : n + 3]).encode() for n in range(max(1, len(words) - 2))]


def _problem(row: dict[str, Any]) -> Problem:
    return parse_problem(row, CANDIDATES)


def _write(
    wanted: Wanted,
    answers: Answers,
    output: Path,
    candidates: Path,
    rejected: dict[str, Rejected],
) -> Kept:
    kept = Kept()
    unread = {Kind.REFERENCE, Kind.UNJUDGED, Kind.NEAR_DUPLICATE, TRIVIAL}
    with whole(output, rejected_path(output)) as [good, bad], candidates.open() as problems:
        for slot in wanted.slots():
            if slot.request not in answers:
                continue
            kept.read += 1
            reason = rejected.get(slot.request)
            line = next(problems) if reason is None or reason.kind in unread else ""
            if reason is None:
                good.write(_row(_problem(json.loads(line)), wanted) + "\n")
                kept.rows += 1
                continue
            kept.left_out[reason.kind] += 1
            told = {
                "request": slot.request,
                "category": slot.category,
                "level": slot.level,
                "reasons": [{"fault": reason.kind, "why": reason.why}],
                "answer": answers.read(slot.request).text,
            }
            bad.write(json.dumps(told) + "\n")
    return kept


def _row(problem: Problem, wanted: Wanted) -> str:
    fields = problem.model_dump(exclude_defaults=True)
    if wanted.purpose == "problems":
        return json.dumps(fields, ensure_ascii=False)
    [turns] = reference_conversations([problem], wanted.topic.language)
    return learnt(to_chatml(turns), turns, fields)


def _describe(wanted: Wanted, output: Path, kept: Kept, seen: str) -> None:
    filters = {
        "topic": wanted.topic.name,
        "digest": wanted.topic.digest,
        "model": wanted.model,
        "url": wanted.url,
        "count": wanted.count,
        "for": wanted.purpose,
        "similar": wanted.similar,
    }
    common = {
        "origin": wanted.origin,
        "revision": seen,
        "licence": None,  # what its writer's terms say
        "filters": filters,
        "seed": wanted.seed,
        "read": kept.read,
    }
    left_out = dict(sorted(kept.left_out.items()))
    write_sidecar(output, **common, left_out=left_out, rows=kept.rows)
    bad = kept.left_out.total()
    write_sidecar(rejected_path(output), **common, left_out={"kept": kept.rows}, rows=bad)
