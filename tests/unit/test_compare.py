"""Comparing results: by problem, on what is in common, and with a word on what is not alike."""

import pytest

from haloforge.benchmark.compare import compare, distinct_names
from haloforge.benchmark.results import Result
from haloforge.errors import InputError
from haloforge.report.comparison import comparison_markdown
from haloforge.report.tables import comparison_table
from tests.results import passing


def only(result: Result, *problems: str) -> Result:
    """The result of these problems alone."""
    kept = {name: result.per_problem[name] for name in problems}
    changed = {"per_problem": kept, "problems": len(kept), "problems_digest": str(problems)}
    return result.model_copy(update=changed)


def test_differences_are_those_to_the_first() -> None:
    found = compare({"a": passing([0] * 8, 2), "b": passing([2] * 8, 2), "c": passing([1] * 8, 2)})
    gains = {name: pair.differences["pass@1"].mean for name, pair in found.pairs.items()}
    assert gains == {"b": 1.0, "c": 0.5}
    assert found.warnings == []
    table = comparison_table(found)
    assert "b - a" in table
    assert "c - b" not in table


def test_wins_losses_and_ties_are_counted_by_problem() -> None:
    pair = compare({"a": passing([0, 1, 2], 2), "b": passing([2, 1, 0], 2)}).pairs["b"]
    assert pair.wins == {"p0": (0.0, 1.0)}
    assert pair.losses == {"p2": (1.0, 0.0)}
    assert (pair.ties, pair.problems) == (1, 3)
    assert pair.differences["pass@1"].mean == 0
    assert pair.differences["pass@1"].low < 0 < pair.differences["pass@1"].high


def test_other_problems_are_compared_on_those_in_common() -> None:
    first, second = passing([1, 1, 1], 2), only(passing([2, 0, 0], 2), "p0")
    found = compare({"a": first, "b": second})
    assert found.pairs["b"].problems == 1
    assert found.pairs["b"].differences["pass@1"].mean == 0.5
    assert found.warnings == [
        "b: other problems than a (1, not 3): compared on the 1 whose ids are in both"
    ]
    with pytest.raises(InputError, match="c and b: no problem in common, of 1 and 1"):
        compare({"b": second, "c": only(first, "p2")})


def test_what_was_measured_otherwise_is_named() -> None:
    first = passing([1, 1], 2)
    settings = {"benchmark.temperature": 0.2, "verify.run_wall_s": 9}
    second = passing([1, 1], 4, lost=2, settings=settings)
    asked = second.settings.model_copy(update={"suite": {"prompt_style": "base"}})
    changed = {"settings": asked, "sandbox_tiers": {"rlimits": 8}, "toolchains": {"gcc 13": 8}}
    second = second.model_copy(update=changed)
    found = compare({"a": first, "b": second})
    assert found.warnings == [
        "b: INCOMPLETE, 2 samples lost to failures of ours",
        "b: samples is 4, that of a 2",
        "b: prompt style is base, that of a None",
        "b: temperature is 0.2, that of a 0.7",
        "b: sandbox tier is rlimits, that of a bubblewrap",
        "b: toolchains is gcc 13, that of a gcc 12",
        "b: run wall s is 9.0, that of a 5.0",
    ]
    for text in (comparison_table(found), comparison_markdown(found)):
        assert all(f"warning: {line}" in text for line in found.warnings)


def test_one_result_is_none_to_compare() -> None:
    with pytest.raises(InputError, match="give two results or more"):
        compare({"a": passing([1], 1)})


def test_names_are_as_short_as_they_can_be() -> None:
    assert distinct_names(["/x/a", "/x/b"]) == ["a", "b"]
    assert distinct_names(["/x/a/out", "/x/b/out"]) == ["a--out", "b--out"]
    assert distinct_names(["Qwen/Coder", "base"]) == ["Coder", "base"]
    with pytest.raises(InputError, match="/x/a: given twice"):
        distinct_names(["/x/a", "/x/b", "/x/a"])
