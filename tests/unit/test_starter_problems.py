"""The bundled problems: complete, well-formed, and split by task."""

import re
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from haloforge.data.problems import STARTER_SPLITS, starter_problems
from haloforge.schema import Problem

FEWEST = {"train": 250, "validation": 55, "test": 140}
DIFFICULTIES = {"beginner", "easy", "medium", "hard"}
MOST_SIMILAR = 0.6
WRONG_PROGRAMS = Path(__file__).parent / "starter_wrong_programs.yaml"


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Problem]]:
    return {split: starter_problems(split) for split in STARTER_SPLITS}


@pytest.fixture(scope="module")
def everything(splits: dict[str, list[Problem]]) -> list[Problem]:
    return [problem for problems in splits.values() for problem in problems]


def statement(problem: Problem) -> str:
    """What is asked, without the example."""
    return str(problem.prompt).partition("\nExample input:\n")[0]


def word_trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def similarity(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    """Jaccard index: shared over all."""
    return len(one & other) / len(one | other)


def test_every_file_holds_problems_of_the_reader(splits: dict[str, list[Problem]]) -> None:
    folder = Path(str(files("haloforge.data") / "starter"))
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(STARTER_SPLITS)
    for split, problems in splits.items():
        rows: list[Any] = []
        for path in sorted((folder / split).iterdir()):
            assert path.suffix == ".yaml", path
            rows += yaml.safe_load(path.read_text("utf-8"))
        assert [Problem.model_validate(row) for row in rows] == problems


@pytest.mark.parametrize("split", STARTER_SPLITS)
def test_a_split_has_enough_problems(splits: dict[str, list[Problem]], split: str) -> None:
    assert len(splits[split]) >= FEWEST[split]
    easy = sum(problem.difficulty in ("beginner", "easy") for problem in splits[split])
    assert easy >= 0.4 * len(splits[split])


def test_ids_are_unique(everything: list[Problem]) -> None:
    assert [key for key, n in Counter(p.problem_id for p in everything).items() if n > 1] == []


def test_a_problem_is_complete(everything: list[Problem]) -> None:
    for problem in everything:
        name = problem.problem_id
        assert re.fullmatch(r"starter/[a-z0-9]+(-[a-z0-9]+)*", name), name
        assert problem.judge == "stdio", name
        assert set(problem.reference) == {"cpp", "python"}, name
        assert problem.difficulty in DIFFICULTIES, name
        assert problem.group, name
        assert problem.tags, name
        assert (problem.source, problem.license) == ("haloforge", "Apache-2.0"), name


def test_a_prompt_names_no_language(everything: list[Problem]) -> None:
    for problem in everything:
        assert problem.language is None
        assert not re.search(r"C\+\+|\bpython\b|#include|\bstd::", str(problem.prompt), re.I)


def test_a_prompt_tells_where_to_read_and_shows_the_first_test(everything: list[Problem]) -> None:
    for problem in everything:
        first = problem.tests[0]
        assert "standard input" in statement(problem), problem.problem_id
        example = f"\nExample input:\n{first.stdin}\nExample output:\n{first.stdout}"
        assert str(problem.prompt).endswith(example), problem.problem_id


def test_tests_are_many_distinct_and_clean(everything: list[Problem]) -> None:
    for problem in everything:
        name = problem.problem_id
        assert len({test.stdin for test in problem.tests}) == len(problem.tests) >= 5, name
        for test in problem.tests:
            assert test.stdin.endswith("\n"), name
            assert test.stdout.endswith("\n"), name
            assert all(line == line.rstrip() for line in test.stdout.split("\n")), name


def test_starter_code_is_how_the_reference_begins(everything: list[Problem]) -> None:
    given: Counter[str] = Counter()
    for problem in everything:
        for language, code in problem.starter_code.items():
            given[language] += 1
            reference = [line for line in problem.reference[language].splitlines() if line]
            assert [line for line in code.splitlines() if line and line not in reference] == []
            assert len(code.splitlines()) < len(problem.reference[language].splitlines())
    assert given["cpp"] >= 0.95 * len(everything)
    assert given["python"] >= 0.75 * len(everything)


def test_a_constant_answer_fails(everything: list[Problem]) -> None:
    for problem in everything:
        answers = Counter(test.stdout for test in problem.tests)
        assert answers.most_common(1)[0][1] <= 0.75 * len(problem.tests), problem.problem_id


def test_groups_do_not_straddle_splits(splits: dict[str, list[Problem]]) -> None:
    owner: dict[str, str] = {}
    for split, problems in splits.items():
        for problem in problems:
            assert owner.setdefault(str(problem.group), split) == split, problem.problem_id


def test_splits_ask_different_things(splits: dict[str, list[Problem]]) -> None:
    grams = {
        split: [(problem.problem_id, word_trigrams(statement(problem))) for problem in problems]
        for split, problems in splits.items()
    }
    close = [
        (mine, theirs)
        for split, other in (("train", "validation"), ("train", "test"), ("validation", "test"))
        for mine, one in grams[split]
        for theirs, two in grams[other]
        if similarity(one, two) >= MOST_SIMILAR
    ]
    assert close == []


def test_similarity_sees_a_changed_number() -> None:
    one = "Write a program that reads n and prints the first 10 multiples of n on one line."
    two = "Write a program that reads n and prints the first 20 multiples of n on one line."
    other = "Write a program that reads a word and prints how many of its letters are vowels."
    assert similarity(word_trigrams(one), word_trigrams(two)) >= MOST_SIMILAR
    assert similarity(word_trigrams(one), word_trigrams(other)) < MOST_SIMILAR


def test_wrong_programs_cover_every_split(splits: dict[str, list[Problem]]) -> None:
    rows = yaml.safe_load(WRONG_PROGRAMS.read_text("utf-8"))
    wrong = {row["problem_id"] for row in rows}
    assert len(rows) == len(wrong) >= 20
    for problems in splits.values():
        ids = {problem.problem_id for problem in problems}
        assert wrong & ids
        wrong -= ids
    assert wrong == set()
