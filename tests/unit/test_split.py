"""`data split`: which rows stay together, and how the others are shared out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haloforge.data.keys import components, digest64, prompt_digest
from haloforge.data.problems import parse_problem
from haloforge.data.sidecar import lineage, write_sidecar, wrote
from haloforge.data.split import KEYS, allot, parse_parts, row_keys, split
from haloforge.errors import InputError
from haloforge.report.progress import Report

SHARES = [0.6, 0.3, 0.1]
Row = tuple[int, int, int, int]  # prompt, problem_id, group, difficulty
ROWS = st.lists(
    st.tuples(*(st.integers(0, high) for high in (30, 30, 40, 2))), min_size=1, max_size=80
)


def digests(values: list[int]) -> Any:
    return np.array([digest64(value) for value in values], np.uint64)


def parts_of(rows: list[Row], seed: int = 0, shares: list[float] = SHARES) -> list[int]:
    prompt, problem, group, difficulty = (
        digests(list(column)) for column in zip(*rows, strict=True)
    )
    same = components(prompt, problem, group)
    return [int(part) for part in allot(same, prompt, difficulty, shares, seed)]


@given(ROWS, st.integers(-5, 5))
@settings(deadline=None)
def test_rows_that_share_a_key_are_in_one_part(rows: list[Row], seed: int) -> None:
    parts = parts_of(rows, seed)
    assert set(parts) <= set(range(len(SHARES)))
    assert len(parts) == len(rows)
    for column in range(3):
        of_value: dict[int, set[int]] = {}
        for row, part in zip(rows, parts, strict=True):
            of_value.setdefault(row[column], set()).add(part)
        assert all(len(found) == 1 for found in of_value.values())


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_rows_decides_nothing(rows: list[Row], random: Any) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    parts = parts_of(rows, seed=7)
    assert parts_of([rows[place] for place in order], seed=7) == [parts[place] for place in order]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=60))
@settings(deadline=None)
def test_shares_hold_within_one_group_in_each_difficulty(groups: list[tuple[int, int]]) -> None:
    rows: list[Row] = [
        (1000 * number + copy, 1000 * number + copy, number, difficulty)
        for number, (size, difficulty) in enumerate(groups)
        for copy in range(size)
    ]
    parts = parts_of(rows)
    for difficulty in {difficulty for _, difficulty in groups}:
        sizes = [size for size, of in groups if of == difficulty]
        found = Counter(part for row, part in zip(rows, parts, strict=True) if row[3] == difficulty)
        for part, share in enumerate(SHARES):
            assert abs(found[part] - share * sum(sizes)) <= max(sizes) + 1e-6


@pytest.mark.parametrize("strata", [1, 7, 100])
def test_the_shares_of_all_rows_hold_however_small_the_strata_are(strata: int) -> None:
    rows: list[Row] = [(n, n, n, n % strata) for n in range(700)]
    found = Counter(parts_of(rows))
    for part, share in enumerate(SHARES):
        assert abs(found[part] - 700 * share) <= 10


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_components_are_those_of_a_plain_search(rows: list[Row]) -> None:
    label = list(range(len(rows)))
    changed = True
    while changed:
        changed = False
        for a, one in enumerate(rows):
            for b, other in enumerate(rows[:a]):
                low = min(label[a], label[b])
                if any(one[k] == other[k] for k in range(3)) and label[a] != label[b]:
                    label[a] = label[b] = low
                    changed = True
    columns = [digests(list(column)) for column in zip(*rows, strict=True)]
    assert components(*columns[:3]).tolist() == label


def test_a_chain_of_rows_is_one_component() -> None:
    links = np.random.default_rng(0).permutation(5000)
    found = components((links // 2).astype(np.uint64), ((links + 1) // 2).astype(np.uint64))
    assert not found.any()


def test_another_seed_is_another_split() -> None:
    rows: list[Row] = [(n, n, n, 0) for n in range(50)]
    assert parts_of(rows, 0) != parts_of(rows, 1)
    assert parts_of(rows, 1) == parts_of(rows, 1)


def chatml(*turns: tuple[str, str]) -> str:
    return "\n".join(f"<|im_start|>{role}\n{said}<|im_end|>" for role, said in turns)


def test_a_problem_and_answers_to_it_have_one_prompt() -> None:
    user, answer = ("user", "Print 1."), ("assistant", "```python\nprint(1)\n```")
    rows: list[dict[str, Any]] = [
        {"prompt": "Print 1.\n", "problem_id": "one"},
        {"text": chatml(user, answer)},
        {"text": chatml(("system", "Be brief."), user, answer), "difficulty": 800},
        {"messages": [{"role": role, "content": said} for role, said in (user, answer)]},
    ]
    keys = [row_keys(row, "f, line 1") for row in rows]
    assert len({key["prompt"] for key in keys}) == 1
    assert {*keys[0], "bytes"} == set(KEYS.names)
    assert keys[0]["problem"] != keys[1]["problem"] == keys[1]["group"] == keys[1]["prompt"]
    assert [key["difficulty"] for key in keys] == [None, None, "800", None]
    json.dumps(keys)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"answer": "x"}, "field 'prompt' is missing"),
        ({"prompt": 5}, "field 'prompt': expected text, found 5"),
        ({"text": "no turns"}, "field 'text': expected '<|im_start|>role'"),
        ({"messages": [{"role": "robot", "content": ""}]}, "field 'messages', turn 1"),
        ({"prompt": "x", "group": ["a"]}, "field 'group': expected text, found ['a']"),
    ],
)
def test_a_row_that_asks_nothing_is_named(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as error:
        row_keys(row, "f.jsonl, line 3")
    assert str(error.value).startswith(f"f.jsonl, line 3: {expected}")


def test_parts_are_names_and_shares() -> None:
    assert parse_parts("train=0.9, test=0.1") == {"train": 0.9, "test": 0.1}
    for text in ("train", "train=x", "train=1,test=0", "a/b=1", "a=0.5,a=0.5", "", "a=nan,b=1"):
        with pytest.raises(InputError, match="expected NAME=SHARE"):
            parse_parts(text)
    with pytest.raises(InputError, match=r"0\.9 in all, expected 1"):
        parse_parts("train=0.8,test=0.1")


def beside(path: Path, licence: str | None, **fields: Any) -> str:
    path.write_text("{}\n")
    told: dict[str, Any] = {"origin": "here", "filters": {}, **fields}
    told |= {"revision": None, "licence": licence, "seed": 0, "read": 1, "left_out": {}, "rows": 1}
    write_sidecar(path, **told)
    return str(path)


def test_the_lineage_of_several_files_is_that_of_each(tmp_path: Path) -> None:
    one, two = beside(tmp_path / "1.jsonl", "MIT"), beside(tmp_path / "2.jsonl", "MIT")
    bare = tmp_path / "3.jsonl"
    bare.write_text("{}\n")
    alone, both = lineage(one, [one]), lineage(str(tmp_path), [one, two])
    assert both["origin"] == str(tmp_path)
    assert both["revision"] == f"{one} {alone['revision']}, {two} {alone['revision']}"
    assert (both["licence"], len(both["parents"])) == ("MIT", 2)
    more = lineage("all", [one, two, str(bare)])
    assert (more["licence"], len(more["parents"])) == (None, 2)
    beside(tmp_path / "2.jsonl", "GPL")
    assert lineage("both", [one, two])["licence"] is None


def test_a_part_replaces_a_part_of_the_same_source_alone(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"prompt": "x"}) + "\n")
    path = tmp_path / "train.jsonl"
    own = {"origin": str(source), "filters": {"part": "train"}}
    for fields in ({}, {**own, "origin": "other"}, {**own, "filters": {"prompts": "distinct"}}):
        beside(path, None, **fields)
        with pytest.raises(InputError, match=r"train\.jsonl: is there, and is no part of"):
            split(str(source), tmp_path, {"train": 1.0}, 0, Report())
    beside(path, None, **own)
    assert wrote(path, str(source), "part")
    path.write_text("changed")
    assert not wrote(path, str(source), "part")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": " Print 1.\n"},
        {"prompt": "Print 1.", "system": "Be brief."},
        {"prefix": "def f():\n"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": " q "}]},
    ],
)
def test_a_problem_has_one_digest_wherever_it_is_taken(row: dict[str, Any]) -> None:
    assert row_keys(row, "f, line 1")["prompt"] == prompt_digest(parse_problem(row, "f, line 1"))
