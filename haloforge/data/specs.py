"""What is known by name and described in a YAML file: reading one, with the place of its faults."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from haloforge.data.jsonl import first_fault
from haloforge.errors import InputError

OWN = (".yaml", ".yml")
_Spec = TypeVar("_Spec", bound=BaseModel)


def read_spec(text: str, place: str, kind: type[_Spec], what: str) -> _Spec:
    """The `kind` in YAML `text`; `what` is how a user calls one. Raises InputError that names
    `place`, the field and what was expected."""
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{place}{line}: not valid YAML") from None
    if not isinstance(tree, dict):
        raise InputError(f"{place}: expected {what} as 'key: value', found {tree!r:.40}")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{place}: {first_fault(error)}") from None


def read_text(path: Path) -> str:
    """What is in a user's own file. Raises InputError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason})") from None
