"""What was asked: the prompt of a sample's problem, from `problems.parquet` beside the samples."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.report.hostile import decoded
from haloforge.store.problems_table import PROBLEMS, PROBLEMS_SCHEMA
from haloforge.view.columns import check_names
from haloforge.view.sources import Source

_SETTINGS = "config.yaml"


class Asked(NamedTuple):
    """A problem as it was put to the model; what is not known of it is None."""

    prompt: str | None
    language: str | None = None
    difficulty: str | None = None
    judge: str | None = None
    source: str | None = None
    form: str | None = None
    why_not: str | None = None
    """Why there is no prompt."""


class Problems:
    """The problems of a run's sources; each file is read when a problem of it is first wanted."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._read: dict[Path, tuple[int, dict[str, Asked]]] = {}
        self._parsed: dict[Path, tuple[int, dict[str, Any] | None]] = {}
        self._turn = threading.Lock()

    def find(self, source: Source, problem: str) -> Asked:
        """The problem with this id that samples of `source` answer."""
        faults = []
        for folder in self._folders(source):
            path = folder / PROBLEMS
            try:
                found = self._of(path).get(problem)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, pa.ArrowException) as error:
                faults.append(f"{path} cannot be read ({error})")
                continue
            if found is not None:
                return found
        return self._from_settings(source, problem, faults)

    def verifier(self, source: Source) -> str:
        """The verifier that judged the samples of `source`: `auto` where that is not told."""
        settings = next(self._settings(source), {})
        told = settings.get("verify")
        return str(told.get("verifier", "auto")) if isinstance(told, dict) else "auto"

    def _folders(self, source: Source) -> Iterator[Path]:
        """That of the source, and those above it, up to the run's."""
        folder = source.folder
        yield folder
        while folder != self._run:
            folder = folder.parent
            yield folder

    def _of(self, path: Path) -> dict[str, Asked]:
        written = path.stat().st_mtime_ns
        with self._turn:
            known = self._read.get(path)
            if known is None or known[0] != written:
                known = self._read[path] = (written, _read(path))
            return known[1]

    def _from_settings(self, source: Source, problem: str, faults: list[str]) -> Asked:
        """From where the run's settings say that its problems were: of a run of an earlier version.
        Nothing is fetched for it."""
        wanted = "raft" if source.kind.rpartition("/")[2] == "samples" else "benchmark"
        for settings in self._settings(source):
            told = settings.get(wanted)
            prompts = told.get("prompts") if isinstance(told, dict) else None
            if not isinstance(prompts, str):
                continue
            key = Path(prompts)
            with self._turn:
                if key not in self._read:
                    self._read[key] = (0, _read_again(prompts, settings.get("language")))
            if found := self._read[key][1].get(problem):
                return found
            return Asked(None, why_not=f"{PROBLEMS} is not there, nor is it among {prompts}")
        why = "; ".join(faults) or f"{PROBLEMS} is not there, nor settings that name the problems"
        return Asked(None, why_not=why)

    def _settings(self, source: Source) -> Iterator[dict[str, Any]]:
        for folder in self._folders(source):
            path = folder / _SETTINGS
            try:
                written = path.stat().st_mtime_ns
                known = self._parsed.get(path)
                if known is None or known[0] != written:
                    known = self._parsed[path] = (written, _parsed(path))
            except OSError:
                continue  # those above, or none: then it is said that the prompt is not at hand
            if known[1] is not None:
                yield known[1]


def _parsed(path: Path) -> dict[str, Any] | None:
    """The settings; None where the file holds none."""
    import yaml

    try:
        told = yaml.safe_load(path.read_text("utf-8"))
    except (ValueError, yaml.YAMLError):
        return None
    return told if isinstance(told, dict) else None


def _read(path: Path) -> dict[str, Asked]:
    with pq.ParquetFile(path, memory_map=True) as file:
        check_names(file, ["problem_id", "prompt"])
        names = [name for name in PROBLEMS_SCHEMA.names if name in file.schema_arrow.names]
        table = file.read(columns=names)
    columns = {name: table[name].cast(pa.binary()).to_pylist() for name in names}
    rows = [
        {
            name: None if values[row] is None else decoded(values[row])
            for name, values in columns.items()
        }
        for row in range(table.num_rows)
    ]
    return {str(row.pop("problem_id")): Asked(**row) for row in rows}


def _read_again(prompts: str, language: Any) -> dict[str, Asked]:
    """What `prompts` holds, by id; nothing where it is not there any more, or a suite."""
    from haloforge.data.problems import read_problems
    from haloforge.errors import HaloforgeError
    from haloforge.store.problems_table import asked

    try:
        found = read_problems(prompts, language if isinstance(language, str) else None)
    except (HaloforgeError, OSError):
        return {}
    return {
        problem.problem_id: Asked(
            asked(problem),
            problem.language,
            problem.difficulty,
            problem.judge,
            problem.source,
            "turns" if problem.prefix is None else "prefix",
        )
        for problem in found
    }
