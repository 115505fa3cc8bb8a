"""What an adapter is: it makes a problem and a conversation of a row, by its set's field names."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from haloforge.data.problems import LANGUAGES
from haloforge.data.rows import Row
from haloforge.errors import InputError
from haloforge.schema import Message


class LeftOut(NamedTuple):
    """Why a row gives no problem, or no conversation; for whoever counts them."""

    reason: str


@dataclass(frozen=True)
class Adapted:
    """What a row gives: the fields of a `Problem`, and a conversation that ends with an answer.

    `split` is the part of its set that a row says it is of, where it says so. `names` are the
    fields of its problem that a row without tests has, as `problem_id`, `group` and `license`.
    """

    problem: dict[str, Any] | LeftOut
    conversation: list[Message] | LeftOut
    split: str | None = None
    names: dict[str, Any] = field(default_factory=dict)


def names_in(fields: dict[str, Any]) -> dict[str, Any]:
    """What a problem is called, and its variants together."""
    return {name: fields[name] for name in ("problem_id", "group") if fields.get(name)}


class Shape(NamedTuple):
    """The fields of one form that a set's rows have: all of `required`, any of `optional`."""

    required: frozenset[str]
    optional: frozenset[str] = frozenset()

    def fits(self, row: Row) -> bool:
        return self.required <= row.keys() <= self.required | self.optional

    def faults(self, row: Row) -> list[str]:
        """What is missing from `row`, then what it has besides, each as a sentence."""
        missing = sorted(self.required - row.keys())
        extra = [name for name in row if name not in self.required | self.optional]
        known = ", ".join(sorted(self.required | self.optional))
        return [
            *(f"field '{name}' is missing" for name in missing),
            *(f"field '{name}' is unknown; known: {known}" for name in extra),
        ]


class Options(BaseModel):
    """What an entry of the catalogue may set of its adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True)


OptionsT = TypeVar("OptionsT", bound=Options)


def _known(language: str) -> str:
    if language not in LANGUAGES:
        raise ValueError(f"unknown language '{language}'; known: {', '.join(LANGUAGES)}")
    return language


LanguageName = Annotated[str, AfterValidator(_known)]


@dataclass(frozen=True)
class Adapter(Generic[OptionsT]):
    """One family of row shapes; `adapt` is a pure function. Where `fences`, the language that one
    chooses is said of answers as the set gives them, so it must be theirs."""

    options: type[OptionsT]
    shapes: tuple[Shape, ...]
    adapt: Callable[[Row, OptionsT], Adapted]
    fences: bool = False

    def check(self, row: Row) -> None:
        """Raises InputError that names the first field by which `row` differs from the shape that
        it is nearest to."""
        if not any(shape.fits(row) for shape in self.shapes):
            nearest = min((shape.faults(row) for shape in self.shapes), key=len)
            raise InputError(f"{row.place}: {nearest[0]}")


def shape(required: str, optional: str = "") -> Shape:
    """The shape of these fields, with spaces between them."""
    return Shape(frozenset(required.split()), frozenset(optional.split()))


def turns(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def fenced(code: str, language: str | None) -> str:
    """`code` as a block of an answer."""
    fence = LANGUAGES[language].fence if language in LANGUAGES else ""
    return f"```{fence}\n{unix(code).strip()}\n```"


def unix(text: str) -> str:
    """`text` with the line ends that models write."""
    return text.replace("\r\n", "\n")
