"""A study: the same pipeline once a seed, each seed's result as a small file, and all pooled."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haloforge.benchmark.compare import paired
from haloforge.benchmark.passk import estimate
from haloforge.benchmark.problems import problems_to_measure
from haloforge.benchmark.results import Result
from haloforge.config import Settings
from haloforge.data.problems import choose_problems, prompts_digest
from haloforge.data.sft import read_sft
from haloforge.errors import HaloforgeError, InputError
from haloforge.pipeline import SUMMARY, pipeline
from haloforge.report.summary import Estimates, paired_name, pairs
from haloforge.schema import digest
from haloforge.store.remote import run_folder
from haloforge.store.run import identity_of, write_atomic

_Values = dict[str, dict[str, dict[str, float]]]  # stage, measure, problem


@dataclass(frozen=True)
class Study:
    """Pooled over `seeds`: measures by stage, and paired differences by `later_minus_earlier`."""

    seeds: list[int]
    models: Estimates
    differences: Estimates
    trivial_rate: dict[str, float]


def study(runs: Sequence[Settings], results: Path) -> Study:
    """Runs the pipeline of each settings (one a seed) that has no result yet; pools all results.

    `results/seed_N.json` is what seed N gave: written once its run has ended, so that a stopped
    study goes on where it was. Raises InputError where a result is there that other settings made,
    HaloforgeError where a run lost samples to failures of ours: its figures would mislead.
    """
    records = []
    for settings in runs:
        path = results / f"seed_{settings.seed}.json"
        if path.is_file():
            record = _read(path, settings)
        else:
            record = _record(settings, pipeline(settings))
            write_atomic(path, _as_text(record))
        records.append(record)
    return pool(records, runs[0].benchmark.resamples)


def pool(records: Sequence[Mapping[str, Any]], resamples: int) -> Study:
    """The mean over seeds of what each problem gave, then intervals over problems.

    The seeds are taken as they are: the interval says how the result would vary with other
    problems of the kind, not with other seeds. Raises InputError where the problems differ.
    """
    if len({frozenset(record["problems"]) for record in records}) > 1:
        raise InputError("the seeds were measured on different problems")
    groups: dict[str, str] = {name: row["group"] for name, row in records[0]["problems"].items()}
    values: _Values = {}
    for problem in groups:
        found = [record["problems"][problem]["values"] for record in records]
        for stage, measures in found[0].items():
            for measure in measures:
                if all(measure in row[stage] for row in found):  # older records lack newer ones
                    mean = sum(row[stage][measure] for row in found) / len(records)
                    values.setdefault(stage, {}).setdefault(measure, {})[problem] = mean
    return Study(
        seeds=[record["seed"] for record in records],
        models={
            stage: {
                measure: estimate(list(v.values()), [groups[p] for p in v], resamples, 0)
                for measure, v in measures.items()
            }
            for stage, measures in values.items()
        },
        differences={
            paired_name(later, earlier): paired(
                values[later], values[earlier], groups, resamples, 0
            )
            for later, earlier in pairs(values)
        },
        trivial_rate={
            stage: sum(record["trivial_rate"][stage] for record in records) / len(records)
            for stage in values
        },
    )


def _record(settings: Settings, results: Mapping[str, Result]) -> dict[str, Any]:
    """What is kept of one seed: its summary, and each problem's values by stage and measure."""
    incomplete = [name for name, result in results.items() if not result.complete]
    if incomplete:
        raise HaloforgeError(
            f"seed {settings.seed}: samples of {', '.join(incomplete)} were lost to failures of "
            "ours; run the study again, which judges them again"
        )
    summary = json.loads((run_folder(settings.output) / SUMMARY).read_text())
    groups = next(iter(results.values())).groups
    return {
        "seed": settings.seed,
        "settings_digest": _settings_digest(settings),
        **{name: summary[name] for name in summary if name not in ("seeds", "problems")},
        "problems": {
            problem: {
                "group": groups[problem],
                "values": {
                    stage: {
                        measure: round(values[problem], 6)
                        for measure, values in result.values.items()
                        if not measure.startswith("compile@") and problem in values
                    }
                    for stage, result in results.items()
                },
            }
            for problem in sorted(groups)
        },
    }


def _settings_digest(settings: Settings) -> str:
    """Of all that decides what a seed gives, but for the seed itself: settings and data."""
    told = {
        **identity_of(settings, {"seed", "output", "ray", "plan", "observe"}),
        "train": identity_of(settings.train, {"seed"}),
        "verify": settings.verify.judging(),
        # The rest is told by the problems that are left.
        "raft": identity_of(settings.raft, {"exclude"}),
        "benchmark": identity_of(
            settings.benchmark, {"exclude", "data_dir", "from_date", "to_date"}
        ),
    }
    problems = [
        choose_problems(settings.raft, settings.language).problems,
        problems_to_measure(settings).problems,
    ]
    tuned = settings.sft
    rows = read_sft(tuned.data, settings.language, settings.system, tuned.difficulty, tuned.limit)
    return digest(json.dumps(told, sort_keys=True), *map(prompts_digest, problems), *rows)


def _read(path: Path, settings: Settings) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        made_with = record["settings_digest"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a result of `halo-forge study`") from None
    if made_with != _settings_digest(settings):
        raise InputError(
            f"{path} was made with other settings or problems; move it away to measure anew, or "
            "name another --results"
        )
    return record


def _as_text(record: Mapping[str, Any]) -> str:
    """JSON with one line a problem, so that the file is small and a change of it can be read."""
    lines = []
    for name, value in record.items():
        if name == "problems":
            rows = ",\n".join(f"    {json.dumps(p)}: {json.dumps(row)}" for p, row in value.items())
            lines.append(f'  "problems": {{\n{rows}\n  }}')
        else:
            lines.append(f"  {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
