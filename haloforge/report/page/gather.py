"""Reads the folder of a pipeline, of RAFT, of SFT or of a benchmark, also one that is half done."""

import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haloforge.benchmark.results import RESULTS, Result
from haloforge.model.adapter import INFO_FILE
from haloforge.report.hostile import clipped, visible
from haloforge.report.page.activity import read_activity
from haloforge.report.page.columns import Counts, count
from haloforge.report.page.files import Files, mapping, number
from haloforge.report.page.run import Cycle, Kind, Measured, Note, Run, Step, Training
from haloforge.report.page.samples import ShownSample, pick_samples
from haloforge.report.page.status import STAGES, status_of
from haloforge.store.layout import (
    ACTIVITY,
    ENGINE_RESTARTS,
    ENVIRONMENT,
    EVAL,
    FINAL,
    LOGS,
    METRICS,
    SECONDS,
    START_EVAL,
    STATISTICS,
    TRAINING,
)
from haloforge.store.shards import working_seconds

_SHOWN_CYCLES = 2
_SHOWN_NOTES = 12
_CYCLE = re.compile(r"cycle_([1-9]\d{0,5})(?:_final)?(?:\.training)?")


def gather(folder: Path) -> Run:
    """What is there; the folder may hold nothing."""
    files = Files(folder)
    kind = kind_of(folder)
    raft = {"pipeline": folder / "raft", "raft": folder}.get(kind)
    sft = {"pipeline": folder / "sft", "sft": folder}.get(kind)
    settings = _settings(files, kind)
    benchmarks = [_measured(files, name, path) for name, path in _benchmarks(folder, kind)]
    cycles = _cycles(files, raft) if raft else []
    trainings = _trainings(files, sft, raft, cycles)
    start = files.result(raft / START_EVAL) if raft else None
    results = [start, *(cycle.held_out for cycle in cycles), *(b.result for b in benchmarks)]
    about = _about(files, sft, raft, cycles, [result for result in results if result])
    notes, noted = _notes(files)
    return Run(
        name=folder.resolve().name,
        kind=kind,
        status=status_of(files, folder, kind, settings, cycles, start, benchmarks),
        benchmarks=benchmarks,
        start=start,
        cycles=cycles,
        trainings=trainings,
        seconds=_seconds(files, folder) if kind == "pipeline" else {},
        settings=settings,
        about=about,
        versions=_texts(about.get("versions")),
        hardware=mapping(about.get("hardware")),
        activity=read_activity(files),
        samples=_samples(files, raft, cycles, folder, kind, benchmarks, settings),
        notes=notes,
        noted=noted,
        unreadable=files.unreadable,
    )


def kind_of(folder: Path) -> Kind:
    """By what is in the folder; `nothing` where that is no run's."""
    what = Files(folder).record(folder / "run.json").get("what")
    if what in ("raft", "sft", "benchmark"):
        found: Kind = what
        return found
    if any((folder / stage).is_dir() for stage in ("raft", "benchmark")) or (
        (folder / "sft").is_dir() and (folder / SECONDS).is_file()
    ):
        return "pipeline"
    if (folder / STATISTICS).is_file() or any(folder.glob("cycle_*/commits")):
        return "raft"
    if (folder / FINAL).is_dir() or (folder / f"{FINAL}{TRAINING}").is_dir():
        return "sft"
    if (folder / RESULTS).is_file() or (folder / "commits").is_dir() or _below(folder):
        return "benchmark"
    return "nothing"


def _below(folder: Path) -> list[Path]:
    """The folders of several benchmarks in one."""
    return sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))


def _benchmarks(folder: Path, kind: Kind) -> list[tuple[str, Path]]:
    if kind == "pipeline":
        named = [(stage, folder / "benchmark" / stage) for stage in STAGES]
        return [(name, path) for name, path in named if path.is_dir()]
    if kind != "benchmark":
        return []
    if (folder / RESULTS).is_file() or (folder / "commits").is_dir():
        return [("", folder)]
    return [(path.name, path) for path in _below(folder)]


def _measured(files: Files, name: str, folder: Path) -> Measured:
    return Measured(name, files.result(folder), count(files, folder), _restarts(files, folder))


def _cycles(files: Files, raft: Path) -> list[Cycle]:
    records = {row.get("cycle"): row for row in files.records(raft / STATISTICS)}
    numbers = {int(found[1]) for p in _entries(raft) if (found := _CYCLE.fullmatch(p.name))}
    numbers |= {cycle for cycle in records if isinstance(cycle, int)}
    return [_cycle(files, raft, cycle, records.get(cycle, {})) for cycle in sorted(numbers)]


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _cycle(files: Files, raft: Path, cycle: int, record: Mapping[str, Any]) -> Cycle:
    folder = raft / f"cycle_{cycle}"
    if not record:  # it may have been trained and not be on record yet
        facts = mapping(files.record(raft / f"{folder.name}_final" / INFO_FILE).get("training"))
        record = {name: facts[name] for name in ("selection", "learning_rate") if name in facts}
        record |= {"warnings": facts["warnings"]} if "warnings" in facts else {}
    restarts = sum(_restarts(files, path) for path in (folder, folder / EVAL))
    return Cycle(
        number=cycle,
        counts=count(files, folder),
        record=record,
        held_out=files.result(folder / EVAL),
        seconds=_seconds(files, folder),
        worked=working_seconds(folder),
        engine_restarts=restarts,
    )


def _restarts(files: Files, folder: Path) -> int:
    text = files.text(folder / ENGINE_RESTARTS) or ""
    return int(text) if text.strip().isdigit() else 0


def _seconds(files: Files, folder: Path) -> dict[str, float]:
    found = files.record(folder / SECONDS)
    return {name: value for name in found if (value := number(found[name])) is not None}


def _trainings(
    files: Files, sft: Path | None, raft: Path | None, cycles: Sequence[Cycle]
) -> list[Training]:
    named = [("SFT", sft / FINAL)] if sft else []
    if raft:
        named += [(f"cycle {c.number}", raft / f"cycle_{c.number}_final") for c in cycles]
    found = [_training(files, name, folder) for name, folder in named]
    return [training for training in found if training.steps or training.done]


def _training(files: Files, name: str, folder: Path) -> Training:
    done = folder.is_dir()
    work = folder if done else folder.with_name(f"{folder.name}{TRAINING}")
    steps: list[Step] = []
    for row in files.lines(work / METRICS):
        loss = number(row.get("loss"))
        if loss is None:
            continue
        told = [number(row.get(name)) for name in ("lr", "eval_loss", "tokens_per_s")]
        place = int(number(row.get("step")) or len(steps) + 1)
        steps.append(Step(place, loss, *told))
    facts = mapping(files.record(folder / INFO_FILE).get("training")) if done else {}
    return Training(name, steps, facts, done)


def _settings(files: Files, kind: Kind) -> dict[str, Any]:
    folder = files.folder
    places = [folder]
    if kind == "pipeline":
        places += [folder / "raft", folder / "sft"]
        places += [folder / "benchmark" / stage for stage in STAGES]
    elif kind == "benchmark":
        places += _below(folder)[:1]
    for place in places:
        if found := files.settings(place / "config.yaml"):
            return found
    return {}


def _about(
    files: Files,
    sft: Path | None,
    raft: Path | None,
    cycles: Sequence[Cycle],
    results: Sequence[Result],
) -> dict[str, Any]:
    """Model, versions and hardware, of the newest file that tells them."""
    sitting = files.record(files.folder / LOGS / ENVIRONMENT)
    found: dict[str, Any] = {
        name: sitting[name] for name in ("versions", "hardware") if name in sitting
    }
    infos = [sft / FINAL] if sft else []
    infos += [raft / f"cycle_{cycle.number}_final" for cycle in cycles] if raft else []
    for folder in infos:
        info = files.record(folder / INFO_FILE)
        found |= {
            name: info[name] for name in ("base_public_id", "base_digest", "system") if name in info
        }
        found["versions"] = info.get("versions") or found.get("versions")
    for result in results:
        found |= {"base_public_id": result.base, "base_digest": result.base_digest}
        if result.environment:
            found["versions"] = result.environment.versions
            found["hardware"] = result.environment.hardware.model_dump()
    return found


def _texts(found: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in mapping(found).items()}


def _samples(
    files: Files,
    raft: Path | None,
    cycles: Sequence[Cycle],
    folder: Path,
    kind: Kind,
    benchmarks: Sequence[Measured],
    settings: Mapping[str, Any],
) -> list[ShownSample]:
    """Of the last cycles; of benchmarks where there is no cycle."""
    chosen: list[tuple[str, Path, Counts]] = []
    if raft:
        last = [cycle for cycle in cycles if cycle.counts.samples][-_SHOWN_CYCLES:]
        chosen = [(f"cycle {c.number}", raft / f"cycle_{c.number}", c.counts) for c in last[::-1]]
    if not chosen:
        paths = dict(_benchmarks(folder, kind))
        chosen = [
            (f"benchmark {each.name}".strip(), paths[each.name], each.counts)
            for each in benchmarks[:_SHOWN_CYCLES]
            if each.counts.samples
        ]
    language = settings.get("language")
    return pick_samples(files, chosen, language if isinstance(language, str) else None)


def _notes(files: Files) -> tuple[list[Note], dict[str, int]]:
    """The last warnings and errors of each log, and how many there are by level."""
    found: list[Note] = []
    levels: Counter[str] = Counter()
    for path in sorted((files.folder / "logs").glob("*.jsonl")):
        if path.name == ACTIVITY:
            continue
        last: deque[Note] = deque(maxlen=_SHOWN_NOTES)
        for row in files.lines(path, having='"level"'):
            level = row.get("level")
            if level not in ("warning", "error"):
                continue
            levels[level] += 1
            told = [_told(row.get(name)) for name in ("at", "stage", "message")]
            last.append(Note(told[0], level, told[1] or path.stem, told[2]))
        found += last
    found.sort(key=lambda note: note.at)
    return found[-_SHOWN_NOTES:], dict(levels)


def _told(value: Any) -> str:
    text, more = clipped(visible(str(value or "")), 400)
    return f"{text}…" if more else text
