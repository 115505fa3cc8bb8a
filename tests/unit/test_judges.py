"""Comparing output, choosing a toolchain, and settings: the parts that run nothing."""

import pytest

from haloforge.errors import InputError, ResourceError
from haloforge.schema import Outcome, Problem
from haloforge.verify import toolchains
from haloforge.verify.judges.comparison import same
from haloforge.verify.judges.judgement import last_words
from haloforge.verify.judges.stdio import judge_run
from haloforge.verify.process import RunResult
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import TOOLCHAINS, language_of, needed, require, select


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (b"3\n", b"3"),
        (b"3", b"3\n\n\n"),
        (b"1 2 \t\n3\r\n", b"1 2\n3"),
        (b"", b"\n"),
        (b"a\n\nb\n", b"a\n\nb"),
        (b"\xff\n", b"\xff"),
    ],
)
def test_white_space_at_the_ends_does_not_matter(printed: bytes, expected: bytes) -> None:
    assert same(printed, expected, "whitespace")
    assert same(printed, expected, "exact") is (printed == expected)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (b"3 ", b"4"),
        (b" 3", b"3"),
        (b"1  2", b"1 2"),
        (b"a\nb", b"a\n\nb"),
        (b"\n3", b"3"),
        (b"3\n3", b"3"),
        (b"", b"3"),
        (b"yes", b"YES"),
    ],
)
def test_all_else_does(printed: bytes, expected: bytes) -> None:
    assert not same(printed, expected, "whitespace")
    assert not same(printed, expected, "exact")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (b"0.3333333", b"0.33333333333"),
        (b"1e6", b"1000000.5"),  # relative
        (b"0.0000001", b"0"),  # absolute
        (b"3", b"3.0000001"),
        (b".5 5.", b"0.5\n5"),
        (b"+3 -0", b"3 0"),
        (b"007", b"7"),
        (b"NaN -nan Infinity -INF", b"nan nan inf -inf"),
        (b"Case 1: 2.0000001", b"Case 1: 2"),
        (b"1" * 100_000, b"1" * 100_000),
        (b"0" * 100_000 + b"5", b"5"),
        (b"1e999", b"1e999"),
        (b"  1.5\r\n\n", b"1.5"),
        (b"\xff", b"\xff"),
    ],
)
def test_floats_may_differ_by_the_tolerance(printed: bytes, expected: bytes) -> None:
    assert same(printed, expected, "float")
    assert same(expected, printed, "float")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (b"0.33", b"0.333333"),
        (b"1000000001", b"1000000000"),  # integers are equal or not
        (b"-5", b"5"),
        (b"1 2", b"1"),
        (b"", b"1"),
        (b"nan", b"1"),
        (b"inf", b"1e308"),
        (b"inf", b"-inf"),
        (b"nan", b"inf"),
        (b"1e999", b"inf"),
        (b"1e999", b"2e999"),
        (b"1" * 100_000, b"1" * 99_999 + b"2"),
        (b"1." + b"0" * 100_000, b"1"),
        (b"1_000", b"1000"),
        (b"0x10", b"16"),
        (b"yes", b"YES"),
        ("\u0663".encode(), b"3"),
        (b"1.5f", b"1.5"),
        (b"1e", b"1"),
    ],
)
def test_other_tokens_differ(printed: bytes, expected: bytes) -> None:
    assert not same(printed, expected, "float")
    assert not same(expected, printed, "float")


def test_the_tolerance_is_the_problem_s() -> None:
    assert same(b"3.15", b"3.14", "float", 0.01)
    assert not same(b"3.15", b"3.14", "float", 0.001)
    assert not same(b"3.1400001", b"3.14", "whitespace", 0.01)


STDIO = {"judge": "stdio", "tests": [{"stdin": "", "stdout": "1"}]}
FUNCTION = {"judge": "function", "test_code": "assert f(1) == 2"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"judge": "function"}, "judge 'function' needs 'test_code'"),
        ({"judge": "pytest", "test_code": ""}, "judge 'pytest' needs 'test_code'"),
        ({**FUNCTION, "test_code": "assert (f(1)"}, "'test_code' does not parse: .*line 1"),
        ({**FUNCTION, "entry_point": "f()"}, r"'entry_point' must be a name, not 'f\(\)'"),
        ({**FUNCTION, "comparison": "float"}, "'comparison' is for judge stdio, not function"),
        ({**FUNCTION, "checker": "x"}, "'checker' is for judge stdio, not function"),
        ({"test_code": "x"}, "'test_code' is for judge function or pytest or program, not compile"),
        ({**STDIO, "entry_point": "f"}, "'entry_point' is for judge function or pytest, not stdio"),
        ({**STDIO, "float_tolerance": 0.1}, "'float_tolerance' needs 'comparison' to be 'float'"),
        ({**STDIO, "comparison": "float", "float_tolerance": 0}, "float_tolerance"),
        ({**STDIO, "comparison": "fuzzy"}, "comparison"),
        ({**STDIO, "checker": "def check("}, "'checker' does not parse"),
        ({**STDIO, "checker": "x = 1"}, r"'checker' must define check\(stdin, stdout, expected\)"),
        (
            {**STDIO, "checker": "def check(a, b, c): ...", "comparison": "float"},
            "give 'checker' or 'comparison', one of them",
        ),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Problem.model_validate({"problem_id": "p", "prompt": "?", **fields})


def test_tests_in_python_are_for_python() -> None:
    problem = Problem.model_validate({"problem_id": "p", "prompt": "?", **FUNCTION})
    row = needed("auto", problem)
    assert row is not None
    assert (problem.language, row.language) == ("python", "python")
    with pytest.raises(InputError, match="problem p: judge 'function' is for Python, not cpp"):
        needed("gcc", problem)
    with pytest.raises(InputError, match="problem p: judge 'function' is for Python, not rust"):
        needed("auto", problem.model_copy(update={"language": "rust"}))


def run(**fields: object) -> RunResult:
    given = {
        "exit_code": 0,
        "signal": None,
        "timed_out": False,
        "output_truncated": False,
        "stdout": b"3\n",
        "stderr": b"",
        "wall_ms": 5.0,
    }
    return RunResult(**{**given, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (run(), Outcome.PASSED),
        (run(stdout=b"4"), Outcome.WRONG_ANSWER),
        (run(exit_code=1), Outcome.RUNTIME_ERROR),
        (run(exit_code=None, signal=11), Outcome.RUNTIME_ERROR),
        (run(exit_code=None, timed_out=True), Outcome.TIMEOUT),
        (run(exit_code=None, output_truncated=True), Outcome.OUTPUT_LIMIT),
        (run(exit_code=None, memory_exceeded=True), Outcome.MEMORY_LIMIT),
        (run(exit_code=1, memory_exceeded=True), Outcome.MEMORY_LIMIT),
        (run(exit_code=None), Outcome.RUNTIME_ERROR),
        (run(exit_code=1, disk_full=True), Outcome.OUTPUT_LIMIT),
        (run(disk_full=True), Outcome.PASSED),
        (run(exit_code=None, signal=25), Outcome.OUTPUT_LIMIT),
    ],
)
def test_right_output_is_no_pass_unless_it_ended_well(result: RunResult, outcome: Outcome) -> None:
    assert judge_run(result, same(result.stdout, b"3", "whitespace"))[0] is outcome


@pytest.mark.parametrize(
    ("verifier", "problem", "answer", "language"),
    [
        ("auto", "c++", None, "cpp"),
        ("auto", "C", "cpp", "c"),
        ("auto", None, "py", "python"),
        ("auto", None, None, None),
        ("gcc", None, None, "cpp"),
        ("gcc", None, "c", "c"),
        ("gcc", "python", "cpp", "cpp"),
        ("python", "cpp", "cpp", "python"),
    ],
)
def test_toolchain(
    verifier: str, problem: str | None, answer: str | None, language: str | None
) -> None:
    row = select(verifier, problem, answer)
    assert (row.language if row else None) == language


def test_tags_belong_to_one_language() -> None:
    for row in TOOLCHAINS:
        assert {language_of(tag) for tag in row.tags} == {row.language}
    assert language_of("fortran") is None
    assert language_of("") is None


def test_unknown_verifier_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'gc'; did you mean 'gcc'\? Known: auto, gcc, python"):
        VerifySettings(verifier="gc")


def test_missing_compiler_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchains, "COMPILER_PATH", "/nonexistent")
    with pytest.raises(ResourceError, match=r"g\+\+: apt-get install g\+\+"):
        require(TOOLCHAINS[0])


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("", ""),
        ("reading\ngave up\n", "gave up"),
        ("Traceback (most recent call last):\n  x\nKeyError: 1\n", "KeyError: 1"),
        ("KeyError: 1\n\nDuring handling of it:\n\nValueError: 2\n", "ValueError: 2"),
        ("panic: no\n\ngoroutine 1 [running]:\n\t/box/main.go:3 +0x65\n", "panic: no"),
        ("/box/main.js:1\nthrow x\n^\n\nError: no\n    at x\n\nNode.js v20\n", "Error: no"),
        (
            'Exception in thread "main" java.lang.RuntimeException: no\n\tat Solution.main\n',
            'Exception in thread "main" java.lang.RuntimeException: no',
        ),
        (
            "\nthread 'main' panicked at main.rs:1:13:\nno\nnote: run with `RUST_BACKTRACE=1`\n",
            "thread 'main' panicked at main.rs:1:13: no",
        ),
    ],
)
def test_the_line_that_tells_why_it_ended(stderr: str, reason: str) -> None:
    ended = RunResult(3, None, False, False, b"", stderr.encode(), 1.0)
    assert last_words(ended) == f"ended with status 3 {reason}".rstrip()


def test_a_signal_is_told_by_its_name() -> None:
    ended = RunResult(None, 11, False, False, b"", b"", 1.0)
    assert last_words(ended) == "died of signal 11 (Segmentation fault)"
    thrown = b"terminate called after throwing an instance of 'std::out_of_range'\n  what():  at\n"
    ended = RunResult(None, 6, False, False, b"", thrown, 1.0)
    assert last_words(ended) == "died of signal 6 (Aborted) what():  at"
