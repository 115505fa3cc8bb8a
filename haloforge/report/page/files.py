"""Small readers of a run's files, for a folder that may be half written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from haloforge.benchmark.results import RESULTS, Result, read_result
from haloforge.errors import InputError

_MOST_TOLD = 20


class Files:
    """Reads files of the run in `folder`. A missing one is None or empty; one that cannot be read
    too, and is told in `unreadable`, by its name in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: list[str] = []

    def text(self, path: Path) -> str | None:
        """UTF-8; what is not is replaced."""
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.note(path, str(error.strerror))
            return None

    def json(self, path: Path) -> Any:
        """Any JSON value."""
        text = self.text(path)
        try:
            return None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            self.note(path, "not valid JSON")
            return None

    def record(self, path: Path) -> dict[str, Any]:
        """A JSON object."""
        found = self.json(path)
        return found if isinstance(found, dict) else {}

    def records(self, path: Path) -> list[dict[str, Any]]:
        """A JSON list of objects."""
        found = self.json(path)
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    def lines(self, path: Path, having: str = "") -> Iterator[dict[str, Any]]:
        """The objects of JSON lines, of those lines that hold the text `having`. A torn last line
        is one that is just being written; others that cannot be read are told."""
        try:
            handle = path.open(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.note(path, str(error.strerror))
            return
        broken = 0
        with handle:
            for line in handle:
                if having not in line or not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    broken += line.endswith("\n")
                    continue
                if isinstance(row, dict):
                    yield row
        if broken:
            self.note(path, f"{broken} lines are not valid JSON")

    def settings(self, path: Path) -> dict[str, Any]:
        """Settings in YAML."""
        text = self.text(path)
        try:
            found = None if text is None else yaml.load(text, _LOADER)
        except (yaml.YAMLError, RecursionError):
            self.note(path, "not valid YAML")
            return {}
        return found if isinstance(found, dict) else {}

    def result(self, folder: Path) -> Result | None:
        """The result of the benchmark in `folder`."""
        if not (folder / RESULTS).is_file():
            return None
        try:
            return read_result(folder)
        except InputError as error:
            self.note(folder / RESULTS, str(error).removeprefix(f"{folder / RESULTS}: "))
            return None

    def note(self, path: Path, fault: str) -> None:
        """`path` cannot be read."""
        if len(self.unreadable) < _MOST_TOLD:
            self.unreadable.append(f"{self.named(path)}: {fault}")

    def named(self, path: Path) -> str:
        """`path` as it is named in the run's folder."""
        try:
            return str(path.relative_to(self.folder)) or "."
        except ValueError:
            return path.name


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def number(value: Any) -> float | None:
    """`value` where it is a finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return value if value == value else None
    return None


def mapping(value: Any) -> dict[str, Any]:
    """`value` where it is an object."""
    return value if isinstance(value, dict) else {}
