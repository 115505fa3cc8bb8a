"""An entry of the catalogue: what a data set is, where it is, and how its rows are read."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from haloforge.data.adapters import ADAPTERS, Adapted, LeftOut
from haloforge.data.adapters.adapter import names_in
from haloforge.data.jsonl import first_fault
from haloforge.data.problems import parse_problem
from haloforge.data.rows import Row
from haloforge.data.showing import hidden_names, names_called
from haloforge.data.specs import read_spec, read_text
from haloforge.errors import InputError
from haloforge.schema import CODE_JUDGES

_UNFIT = (AttributeError, TypeError, ValueError, KeyError, OverflowError, RecursionError)
_UNFIT_TOLD = "a field holds what is of another kind than the set's"
"""Of what a field of another kind makes an adapter raise."""
Use = Literal["sft", "problems", "benchmark"]
Part = Literal["train", "validation", "test", "shots"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(_Strict):
    """Where the rows are: one of `hub`, `path` and `bundled`.

    `hub` is a dataset's id on the Hugging Face Hub, with its `config` (subset) and the `revision`,
    a commit in full, that is read; null reads what is newest there. `path` is a file or folder,
    here or in object storage, or beside the entry's own file where it is relative.
    """

    hub: str | None = None
    config: str | None = None
    revision: str | None = Field(None, pattern="^[0-9a-f]{40}$")
    path: str | None = None
    bundled: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "Origin":
        if [self.hub, self.path, self.bundled].count(None) != 2:
            raise ValueError("give 'hub', 'path' or 'bundled', one of them")
        if self.hub is None and (self.config or self.revision):
            raise ValueError("'config' and 'revision' are of a 'hub'")
        return self

    def __str__(self) -> str:
        if self.hub is None:
            return self.path or "bundled with haloforge"
        config = f", config {self.config}" if self.config else ""
        at = f"revision {self.revision[:7]}" if self.revision else "revision not pinned"
        return f"{self.hub}{config}, {at}"


class Split(_Strict):
    """A split of the set: what it is `used_for`, its `rows`, where somebody counted them, and the
    `files` of the origin that hold it, as a pattern; all of them, where there is none."""

    used_for: Part
    files: str | None = None
    rows: int | None = Field(None, ge=0)


class Entry(_Strict):
    """One data set.

    `rows_source` says who counted the rows. `tests` is the judge that its problems come with, null
    where they have no tests. A `test_set` is a benchmark as a whole: with it, and with splits that
    are used for `test`, nobody trains by mistake. `about` is what one should know before using it.

    `fields` maps the fields of the adapter to columns of the set, where those are called otherwise;
    with it, columns that it does not name are not looked at.
    """

    name: str = Field(pattern="^[a-z0-9_+-]+$")
    origin: Origin
    splits: dict[str, Split] = Field(min_length=1)
    rows_source: str | None = None
    licence: str
    languages: list[str]
    uses: list[Use] = Field(min_length=1)
    tests: Literal["stdio", "function", "program", "pytest"] | None = None
    test_set: bool = False
    about: str | None = None
    adapter: str
    options: dict[str, Any] = {}
    fields: dict[str, str] = {}

    @model_validator(mode="after")
    def _known_adapter(self) -> "Entry":
        adapter = ADAPTERS.get(self.adapter)
        if adapter is None:
            known = ", ".join(ADAPTERS)
            raise ValueError(f"field 'adapter': unknown adapter '{self.adapter}'; known: {known}")
        try:
            adapter.options.model_validate(self.options)
        except ValidationError as error:
            raise ValueError(f"field 'options', {first_fault(error)}") from None
        names = {name for shape in adapter.shapes for name in shape.required | shape.optional}
        unknown = [name for name in self.fields if name not in names]
        if unknown:
            raise ValueError(
                f"field 'fields': adapter '{self.adapter}' has no field '{unknown[0]}'; "
                f"known: {', '.join(sorted(names))}"
            )
        lacking = min(
            (sorted(shape.required - {*self.fields}) for shape in adapter.shapes), key=len
        )
        if self.fields and lacking:
            raise ValueError(f"field 'fields': it maps no column to '{lacking[0]}'")
        return self

    def adapt(
        self, row: dict[str, Any], place: str, language: str | None = None, strict: bool = False
    ) -> Adapted:
        """What `row` gives, in `language` where the adapter lets that be chosen.

        Its problem has passed `Problem`, and its prompt shows what its tests call. Raises
        InputError that names `place` and the field for a row that is not of the set's form; where
        `strict`, also for one that holds in a field what should not be there, which is else left
        out.
        """
        adapter = ADAPTERS[self.adapter]
        options = self._options(language)
        mapped = self._mapped(row, place)
        adapter.check(mapped)
        try:
            found = adapter.adapt(mapped, options)
        except (InputError, *_UNFIT) as error:  # what one row holds, not how the set is made up
            told = str(error) if isinstance(error, InputError) else f"{place}: {_UNFIT_TOLD}"
            if strict:
                raise InputError(told) from None
            left_out = LeftOut(told.removeprefix(f"{place}: "))
            return Adapted(left_out, left_out)
        if isinstance(found.problem, LeftOut):
            return found
        described = {"source": self.origin.hub or self.name, "license": self.licence}
        problem = _checked({**described, **found.problem}, place, strict)
        return Adapted(problem, found.conversation, found.split, names_in(found.problem))

    def _options(self, language: str | None) -> Any:
        adapter = ADAPTERS[self.adapter]
        chosen = "language" in adapter.options.model_fields
        listed = not self.languages or language in self.languages
        if language is None or (listed and not chosen):
            return adapter.options.model_validate(self.options)
        try:
            if listed or (chosen and not adapter.fences):
                return adapter.options.model_validate({**self.options, "language": language})
        except ValidationError:
            pass  # a language that the adapter has no answers in
        known = ", ".join(self.languages) or "those of the rows"
        raise InputError(f"{self.name}: no answers in language '{language}'; known: {known}")

    def _mapped(self, row: dict[str, Any], place: str) -> Row:
        if not self.fields:
            return Row(row, place)
        for column in self.fields.values():
            if column not in row:
                raise InputError(
                    f"{place}: field '{column}' is missing; there: {', '.join(sorted(row))}"
                )
        return Row({name: row[column] for name, column in self.fields.items()}, place)


def _checked(fields: dict[str, Any], place: str, strict: bool) -> dict[str, Any] | LeftOut:
    """The problem, or why it is none: a fault of one row, which is counted, and stops only those
    who are `strict`."""
    try:
        problem = parse_problem(fields, place)
        if problem.judge in CODE_JUDGES and problem.test_code:
            asked = "\n".join(turn["content"] for turn in problem.turns()) + (problem.prefix or "")
            names = names_called(problem.test_code, problem.entry_point, problem.judge)
            hidden = hidden_names(asked, names)
            if hidden:
                return LeftOut(f"its prompt hides '{hidden[0]}', which its tests call")
    except InputError as error:
        if strict:
            raise
        return LeftOut(str(error).removeprefix(f"{place}: "))
    except (RecursionError, ValueError) as error:
        return LeftOut(str(error))
    return problem.model_dump(exclude_defaults=True)


def read_entry(text: str, place: str) -> Entry:
    """The entry in YAML `text`. Raises InputError that names `place` and the field."""
    return read_spec(text, place, Entry, "an entry")


def read_own_entry(path: Path) -> Entry:
    """The entry in a user's own file; a relative `origin.path` is one beside it."""
    entry = read_entry(read_text(path), str(path))
    beside = entry.origin.path
    if beside is None or "://" in beside:
        return entry
    origin = entry.origin.model_copy(update={"path": str(path.parent / beside)})
    return entry.model_copy(update={"origin": origin})
