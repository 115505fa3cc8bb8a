"""Problems to solve: the bundled starter set, and JSONL files of problems or of SFT rows."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import yaml
from pydantic import ValidationError

from haloforge.data.chat import parse_chatml
from haloforge.data.jsonl import first_fault, read_jsonl
from haloforge.data.showing import with_names_shown
from haloforge.errors import InputError
from haloforge.schema import Problem, digest
from haloforge.store.storage import local_path

# libyaml's loader reads the starter set ten times as fast; PyYAML is not always built with it.
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
STARTER = "starter"
STARTER_SPLITS = ("train", "validation", "test")
DEFAULT_LANGUAGE = "cpp"
UNTESTED = (
    "no problem has tests that can be run, so only compiling is judged: a benchmark gives "
    "compile@k and never pass@k, and RAFT selects on compiling alone"
)
"""What a set of problems without tests costs."""
_T = TypeVar("_T")


class Language(NamedTuple):
    """How a language is asked for in a prompt."""

    name: str
    fence: str


LANGUAGES = {
    "c": Language("C", "c"),
    "cpp": Language("C++", "cpp"),
    "python": Language("Python", "python"),
    "rust": Language("Rust", "rust"),
    "go": Language("Go", "go"),
    "javascript": Language("JavaScript", "javascript"),
    "java": Language("Java", "java"),
}


def read_problems(
    source: str,
    language: str | None = None,
    limit: int | None = None,
    difficulty: Collection[str] = (),
) -> list[Problem]:
    """The problems in `source`: `starter` (its training split), `starter/test`, or a JSONL file.

    A problem that names no language is asked for in `language`, if that is given; the starter set
    in C++ by default. A prompt that repeats is one problem. `difficulty` takes the problems of
    these difficulties only (all, where it is empty), and `limit` that many of them, the same ones
    wherever they stand in the source. Raises InputError naming file, line and field of what is
    wrong.
    """
    if language is not None and language not in LANGUAGES:
        raise InputError(f"unknown language '{language}'; known: {', '.join(LANGUAGES)}")
    name, _, split = source.partition("/")
    if name == STARTER and not Path(source).exists():
        problems = starter_problems(split or "train")
        language = language or DEFAULT_LANGUAGE
    else:
        path = local_path(source)
        problems = [
            parse_problem(row, f"{path}, line {number}") for number, row in read_jsonl(path)
        ]
    problems = _distinct([in_language(problem, language) for problem in problems], source)
    problems = _of_difficulty(problems, difficulty, source)
    return list(fixed_subset(problems, limit, lambda problem: problem.problem_id))


def _of_difficulty(
    problems: list[Problem], difficulty: Collection[str], source: str
) -> list[Problem]:
    kept = [problem for problem in problems if not difficulty or problem.difficulty in difficulty]
    if not kept:
        known = sorted({problem.difficulty or "none" for problem in problems})
        raise InputError(
            f"{source}: no problem of difficulty {', '.join(difficulty)}; there: {', '.join(known)}"
        )
    return kept


class Choice(Protocol):
    """Settings that choose problems: those of RAFT and of the benchmark."""

    @property
    def prompts(self) -> str: ...
    @property
    def difficulty(self) -> list[str]: ...
    @property
    def exclude(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...


class Chosen(NamedTuple):
    """The problems of a run, and how many were left out by name."""

    problems: list[Problem]
    excluded: int


def choose_problems(
    choice: Choice, language: str | None, problems: list[Problem] | None = None
) -> Chosen:
    """The problems that `choice` takes: of its source, or of `problems` where those are given, of
    its difficulties, without the ids in the file `exclude`, `limit` of them. Raises InputError
    where none is left."""
    if problems is None:
        problems = read_problems(choice.prompts, language)
    problems = _of_difficulty(problems, choice.difficulty, choice.prompts)
    left_out = read_ids(local_path(choice.exclude)) if choice.exclude else set()
    kept = [problem for problem in problems if problem.problem_id not in left_out]
    if not kept:
        raise InputError(f"{choice.exclude}: leaves out every problem of {choice.prompts}")
    subset = fixed_subset(kept, choice.limit, lambda problem: problem.problem_id)
    return Chosen(list(subset), len(problems) - len(kept))


def read_ids(path: Path) -> set[str]:
    """The problem ids in a file: one a line, or in the field `problem_id` of JSON lines."""
    if path.suffix == ".jsonl" and path.is_file() and path.stat().st_size:
        rows = list(read_jsonl(path))
        for number, row in rows:
            if not isinstance(row.get("problem_id"), str):
                raise InputError(f"{path}, line {number}: field 'problem_id' is missing")
        return {row["problem_id"] for _, row in rows}
    try:
        return set(path.read_text(encoding="utf-8").split("\n")) - {""}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def fixed_subset(rows: Sequence[_T], limit: int | None, key: Callable[[_T], str]) -> Sequence[_T]:
    """`limit` of `rows` in their order, chosen by the digest of `key`: the same wherever they stand
    among others, and those of a smaller limit are among them."""
    if limit is None or limit >= len(rows):
        return rows
    order = sorted(range(len(rows)), key=lambda place: digest(key(rows[place])))
    return [rows[place] for place in sorted(order[:limit])]


def starter_problems(split: str) -> list[Problem]:
    """The bundled problems of one split, without a language."""
    if split not in STARTER_SPLITS:
        raise InputError(f"no split '{split}' in '{STARTER}'; known: {', '.join(STARTER_SPLITS)}")
    folder = files("haloforge.data") / STARTER / split
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return [
        parse_problem(row, f"{STARTER}/{split}/{name}, entry {number}")
        for name in names
        for number, row in enumerate(yaml.load((folder / name).read_text("utf-8"), _Loader), 1)
    ]


def in_language(problem: Problem, language: str | None) -> Problem:
    """`problem` with the language it is to be answered in, said at the end of its prompt."""
    if language is None or problem.language is not None or problem.prompt is None:
        return problem
    prompt = asked_in(problem.prompt, language)
    return problem.model_copy(update={"prompt": prompt, "language": language})


def asked_in(prompt: str, language: str) -> str:
    """`prompt`, with the language of its answer said at its end."""
    name, fence = LANGUAGES[language]
    return f"{prompt.rstrip()}\n\nAnswer with one {name} program in a ```{fence} block."


def answer_start(problem: Problem) -> str:
    """How the answer to `problem` begins, given to the model: its `answer_start`, its `prefix`, or
    its starter code in an open block.

    Empty where the problem has none, or none in its language. Starter code comes without the end
    of its last line, which tokenizers join with the spaces that follow.
    """
    given = problem.prefix if problem.answer_start is None else problem.answer_start
    if given is not None:
        return given
    language = problem.language or ""
    code = problem.starter_code.get(language)
    if not code:
        return ""
    fence = LANGUAGES[language].fence if language in LANGUAGES else language
    return f"```{fence}\n{code.rstrip()}"


def prompts_digest(problems: Iterable[Problem]) -> str:
    """Digest of everything about the problems that decides their samples and verdicts.

    Fields at their defaults are left out, so that a new one changes no digest. A default there
    means that nothing is said, and so is not changed.
    """
    return digest(
        *(
            problem.model_dump_json(exclude={"reference"}, exclude_defaults=True)
            for problem in problems
        )
    )


def parse_problem(row: dict[str, Any], place: str) -> Problem:
    """The problem in a row. Its id is a digest where the row has none, and it is judged by its
    tests where it has some. Raises InputError that names `place` and the field."""
    for name, value in row.items():
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise InputError(f"{place}: field '{name}': half a surrogate pair, no text") from None
    if "text" in row:
        row = _from_text(row, place)
    if not row.keys() & {"prompt", "messages", "prefix"}:
        raise InputError(f"{place}: field 'prompt' is missing (or 'messages', or ChatML in 'text')")
    if row.get("tests"):
        row = {"judge": "stdio", **row}
    elif row.get("test_code"):
        row = {"judge": "function", **row}
    if "problem_id" not in row:
        asked = [row[name] for name in ("prefix",) if name in row]
        row = {**row, "problem_id": digest(row.get("prompt"), row.get("messages"), *asked)}
    try:
        return Problem.model_validate(row)
    except ValidationError as error:
        raise InputError(f"{place}: {first_fault(error)}") from None


def is_answered(messages: Any) -> bool:
    """Whether these are turns of which the last is an assistant's."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "assistant"


def _from_text(row: dict[str, Any], place: str) -> dict[str, Any]:
    """The problem in an SFT row: its conversation without the last answer. `messages` are taken
    where there are some, for `text` may follow a template that is not ChatML."""
    try:
        messages = row.get("messages") or parse_chatml(row["text"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: field 'text': {error}") from None
    if is_answered(messages):
        messages = messages[:-1]
    rest = {key: value for key, value in row.items() if key in Problem.model_fields}
    try:
        return with_names_shown({**rest, "messages": messages})
    except ValueError as error:
        raise InputError(f"{place}: field 'test_code': {error}") from None


def _distinct(problems: list[Problem], source: str) -> list[Problem]:
    """One problem for each prompt; two prompts under one id are refused."""
    by_prompt: dict[str, Problem] = {}
    by_id: dict[str, str] = {}
    for problem in problems:
        prompt = problem.prefix or str(problem.turns())
        by_prompt.setdefault(prompt, problem)
        if by_id.setdefault(problem.problem_id, prompt) != prompt:
            raise InputError(
                f"{source}: two different prompts have problem_id '{problem.problem_id}'"
            )
    return list(by_prompt.values())
