"""Codeforces: the problems of open-r1, and what DeepSeek-R1 answered to them.

Shapes: `open-r1/codeforces-cots` on the hub (dataset card at revision 39ac85c; the decontaminated
configs carry tests too, in columns of which the card's readers print the names); and
`open-r1/codeforces`, config `default` (dataset card at revision 8fd706e) with the columns that its
`verifiable-prompts` adds. How a checker of theirs is called and when a test is passed is that of
`src/open_r1/utils/competitive_programming/cf_scoring.py` in huggingface/open-r1.
Rows of `prompt`, `response`, `title` and `difficulty`, a sample of the first, are taken as well.
"""

from typing import Any, Literal

from haloforge.data.adapters.adapter import (
    Adapted,
    Adapter,
    LeftOut,
    Options,
    fenced,
    shape,
    turns,
)
from haloforge.data.adapters.contest import (
    ContestOptions,
    checker_script,
    distinct,
    limits,
    stdio,
)
from haloforge.data.adapters.fields import Tests, cases, flag, number, text, texts
from haloforge.data.problems import asked_in
from haloforge.data.rows import Row
from haloforge.schema import digest
from haloforge.verify.extract import extract

STATEMENT = "id contest_id index title description input_format output_format examples"
BESIDE = (
    "aliases contest_name contest_type contest_start contest_start_year time_limit memory_limit "
    "note editorial interaction_format"
)
ANSWERED = shape(
    f"{STATEMENT} generation",
    f"{BESIDE} problem prompt finish_reason api_metadata messages problem_type accepted_solutions "
    "failed_solutions public_tests public_tests_ms private_tests generated_tests",
)
SAMPLE = shape("prompt response title difficulty")
PROBLEM = shape(
    f"{STATEMENT} official_tests",
    f"{BESIDE} rating tags testset_size official_tests_complete input_mode generated_checker "
    "executable generated_tests language prompt",
)
INTERACTIVE = LeftOut("it is interactive: no test tells what to print")
NO_TESTS = LeftOut("it has no tests")


class AnswerOptions(Options):
    """`language` is that of the answers. `answer` keeps of a generation its `code`, or the `whole`
    of it, reasoning included."""

    language: Literal["cpp", "python"] = "cpp"
    answer: Literal["code", "whole"] = "code"


class TestOptions(ContestOptions):
    """`complete_tests` leaves out problems of which some official tests are not told in full."""

    __test__ = False  # not a pytest class

    complete_tests: bool = True


def adapt_answer(row: Row, options: AnswerOptions) -> Adapted:
    """The problem with the tests that its row has, those of its statement at least, and the model's
    answer, if that was not cut off and holds code. Nobody says that the answer is right: it is the
    problem's reference nowhere."""
    if "response" in row:
        return _sample(row, options)
    question = _statement(row)
    asked_for = asked_in(question, options.language)
    return Adapted(
        _tested(row, question, _all_tests(row), options.language),
        _answer(row, asked_for, options),
        names=_names(row),
    )


def adapt_problem(row: Row, options: TestOptions) -> Adapted:
    """The problem with its official tests, and its checker where answers may differ."""
    no_answers = LeftOut("the set holds no solutions")
    if text(row, "input_mode") == "file":
        return Adapted(LeftOut("it reads and writes files, not standard input"), no_answers)
    if options.complete_tests and flag(row, "official_tests_complete") is False:
        return Adapted(LeftOut("its official tests are not complete"), no_answers)
    tests = distinct(cases(row, "official_tests"))
    problem = _tested(row, _statement(row), tests, options.language)
    checker = text(row, "generated_checker")
    if checker and isinstance(problem, dict):
        problem.pop("comparison")
        problem["checker"] = checker_script(checker)
    return Adapted(problem, no_answers)


def _tested(
    row: Row, question: str, tests: Tests, language: str | None
) -> dict[str, Any] | LeftOut:
    if text(row, "interaction_format").strip():
        return INTERACTIVE
    if not text(row, "description").strip():
        return LeftOut("it has no statement")
    if not tests:
        return NO_TESTS
    rating = number(row, "rating")
    return {
        **_names(row),
        **stdio(question, tests, language),
        "limits": limits(number(row, "time_limit"), number(row, "memory_limit")),
        "difficulty": f"{rating:.0f}" if rating else text(row, "index"),
        "tags": texts(row, "tags"),
    }


def _names(row: Row) -> dict[str, str]:
    # One problem of two divisions has two names.
    group = min([text(row, "id"), *texts(row, "aliases")])
    return {"problem_id": f"codeforces/{text(row, 'id')}", "group": f"codeforces/{group}"}


def _all_tests(row: Row) -> Tests:
    names = ("examples", "public_tests", "public_tests_ms", "private_tests", "generated_tests")
    return distinct([test for name in names for test in cases(row, name)])


def _statement(row: Row) -> str:
    """The statement, as the site sets it out."""
    examples = cases(row, "examples")
    parts = [
        ("", text(row, "title")),
        ("", text(row, "description")),
        ("Input", text(row, "input_format")),
        ("Output", text(row, "output_format")),
        ("Interaction", text(row, "interaction_format")),
        *(
            (f"Example {number}", f"Input:\n{test['stdin']}\n\nOutput:\n{test['stdout']}")
            for number, test in enumerate(examples, 1)
        ),
        ("Note", text(row, "note")),
    ]
    said = [f"{head}\n\n{body.strip()}" if head else body.strip() for head, body in parts if body]
    return "\n\n".join(part for part in said if part)


def _answer(row: Row, question: str, options: AnswerOptions) -> Any:
    if text(row, "finish_reason") not in ("", "stop"):
        return LeftOut("its answer was cut off")
    generation = text(row, "generation")
    found = extract(generation, options.language)
    if found is None:
        return LeftOut(f"its answer holds no {options.language} code")
    answer = generation if options.answer == "whole" else fenced(found.code, options.language)
    return turns(question, answer)


def _sample(row: Row, options: AnswerOptions) -> Adapted:
    question = asked_in(text(row, "prompt"), options.language)
    code = text(row, "response")
    name = f"codeforces/{digest(question)}"
    problem = {
        "problem_id": name,
        "group": name,
        "prompt": question,
        "language": options.language,
        "difficulty": text(row, "difficulty"),
    }
    answer = code if "```" in code else fenced(code, options.language)
    return Adapted(problem, turns(question, answer))


CODEFORCES_ANSWERS = Adapter(AnswerOptions, (ANSWERED, SAMPLE), adapt_answer, fences=True)
CODEFORCES_PROBLEMS = Adapter(TestOptions, (PROBLEM,), adapt_problem)
