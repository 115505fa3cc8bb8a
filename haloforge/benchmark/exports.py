"""Samples as JSON lines for other people's scorers."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from haloforge.schema import Problem
from haloforge.store.run import write_atomic
from haloforge.store.shards import Judged
from haloforge.verify.extract import answer_of
from haloforge.verify.settings import VerifySettings

SANITISED = "samples.jsonl"
RAW = "samples-raw.jsonl"


def export_samples(
    folder: Path, problems: Sequence[Problem], judged: Iterable[Judged], settings: VerifySettings
) -> None:
    """Writes `samples.jsonl`, rows of `task_id` and `solution` (the code that was judged, empty
    where there was none; EvalPlus reads them), and `samples-raw.jsonl`, rows of `task_id` and
    `completion` (the text as it stands), both by problem, then by index."""
    place = {problem.problem_id: number for number, problem in enumerate(problems)}
    rows = sorted(
        (row.sample for row in judged), key=lambda s: (place[s["problem_id"]], s["index"])
    )
    own = settings.own() is not None
    sanitised, raw = [], []
    for sample in rows:
        name = sample["problem_id"]
        answer = answer_of(sample, problems[place[name]], settings.verifier, own)
        sanitised.append({"task_id": name, "solution": answer.code if answer else ""})
        raw.append({"task_id": name, "completion": sample["completion"]})
    for file, lines in ((SANITISED, sanitised), (RAW, raw)):
        write_atomic(folder / file, "".join(f"{json.dumps(line)}\n" for line in lines))
