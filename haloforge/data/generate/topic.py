"""What problems are asked for: topics, one YAML file each in `topics/`, and a user's own."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from haloforge.data.adapters.adapter import LanguageName
from haloforge.data.normalise import without_comments
from haloforge.data.specs import OWN, read_spec, read_text
from haloforge.errors import InputError
from haloforge.schema import CODE_JUDGES, digest

APPENDED = {
    "cpp": "ends with `int main()` and `assert`s in it, where the solution includes <cassert> and "
    "<iostream>",
    "rust": "ends with `fn main()` and `assert!`s in it",
    "go": "holds functions `func TestX(t *testing.T)`, where the solution begins with `package "
    'main` and imports "fmt" and "testing"',
    "javascript": "holds statements with `assert`, where the solution has `const assert = "
    "require('node:assert')`",
}
"""The form of tests that are appended to a solution (judge `program`), by language. Java's would
stand in a class that the solution leaves open."""

Line = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Strict):
    """What a solution's code must hold, or must not: a regular expression of RE2, which takes
    linear time, and in words, for whoever writes it, `says`."""

    pattern: Line
    says: Line

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            _found(pattern, "")
        except pa.ArrowInvalid as error:
            told = str(error).removeprefix("Invalid regular expression: ")
            raise ValueError(f"expected a regular expression of RE2 ({told})") from None
        return pattern

    def fits(self, code: str) -> bool:
        return _found(self.pattern, code)


class Category(_Strict):
    """One part of a topic, with rules of its own."""

    about: Line
    required: list[Rule] = []
    forbidden: list[Rule] = []


class Topic(_Strict):
    """What problems are asked for.

    Requests go round the `categories` and `levels`, each with one of the `themes` to tell its story
    with. `rules` are said to whoever writes; `required` and `forbidden` are said too, and looked
    for in the solution's code, comments left out. `tests` is the least number of tests, or of
    asserts. `answer_tokens` is about how long an answer is, for the cost that is told.
    """

    name: str = Field(pattern="^[a-z0-9_]+$")
    about: Line
    language: LanguageName
    judge: Literal["stdio", "function", "pytest", "program"]
    categories: dict[str, Category] = Field(min_length=1)
    levels: dict[str, Line] = Field(min_length=1)
    themes: list[Line] = []
    rules: list[Line] = []
    required: list[Rule] = []
    forbidden: list[Rule] = []
    tests: int = Field(4, ge=1)
    answer_tokens: int = Field(1500, ge=1)

    @model_validator(mode="after")
    def _judged_in(self) -> "Topic":
        if self.judge in CODE_JUDGES and self.language != "python":
            raise ValueError(f"field 'judge': '{self.judge}' is for language python")
        if self.judge == "program" and self.language not in APPENDED:
            known = ", ".join(APPENDED)
            raise ValueError(f"field 'judge': 'program' is for languages {known}")
        return self

    @property
    def digest(self) -> str:
        """Of all that decides what is asked and kept."""
        return digest(self.model_dump_json(exclude={"answer_tokens"}))

    def required_in(self, category: str) -> list[Rule]:
        return [*self.required, *self.categories[category].required]

    def forbidden_in(self, category: str) -> list[Rule]:
        return [*self.forbidden, *self.categories[category].forbidden]

    def broken(self, code: str, category: str) -> str | None:
        """The first rule of `category` that `code` breaks, in words."""
        bare = without_comments(code, self.language)
        for rule in self.required_in(category):
            if not rule.fits(bare):
                return f"required and not there: {rule.says}"
        for rule in self.forbidden_in(category):
            if rule.fits(bare):
                return f"forbidden and there: {rule.says}"
        return None


def _found(pattern: str, text: str) -> bool:
    """Arrow's RE2: Python's own may take exponential time, and code is whatever somebody wrote."""
    plain = text.encode(errors="replace").decode()
    return bool(pc.match_substring_regex(pa.scalar(plain), pattern=pattern).as_py())


@cache
def topics() -> dict[str, Topic]:
    """The known topics by name."""
    found = {}
    for file in sorted((files(__package__) / "topics").iterdir(), key=lambda file: file.name):
        if file.name.endswith(OWN):
            topic = read_spec(file.read_text("utf-8"), f"topics/{file.name}", Topic, "a topic")
            if f"{topic.name}.yaml" != file.name:
                raise InputError(f"topics/{file.name}: field 'name': expected the file's name")
            found[topic.name] = topic
    return found


def find_topic(name: str) -> Topic:
    """The topic of that name, or in that YAML file. Raises InputError."""
    if Path(name).suffix in OWN:
        return read_spec(read_text(Path(name)), name, Topic, "a topic")
    if (topic := topics().get(name)) is None:
        known = ", ".join(topics())
        raise InputError(f"no topic '{name}'; known: {known}, or a YAML file of your own")
    return topic
