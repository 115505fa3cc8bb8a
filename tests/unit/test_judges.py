"""Comparing output, choosing a toolchain, and settings: the parts that run nothing."""

import pytest

from haloforge.errors import InputError, ResourceError
from haloforge.schema import Outcome, Test
from haloforge.verify import toolchains
from haloforge.verify.judges import judge_run, same_output
from haloforge.verify.process import RunResult
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import TOOLCHAINS, language_of, require, select


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
    assert same_output(printed, expected)


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
    assert not same_output(printed, expected)


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
    ],
)
def test_right_output_is_no_pass_unless_it_ended_well(result: RunResult, outcome: Outcome) -> None:
    assert judge_run(result, Test(stdin="", stdout="3"))[0] is outcome


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
