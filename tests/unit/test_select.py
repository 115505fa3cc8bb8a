"""Selection keeps the best, explains every drop, and is the same on every run."""

import math
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from haloforge.errors import HaloforgeError, InfraError, InputError
from haloforge.raft.select import Selection
from haloforge.raft.settings import RaftSettings
from tests.raft_runs import Row, problem, selected, write_cycle


def trained(selection: Selection) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(selection.path).to_pylist()
    assert [row["rank"] for row in rows] == list(range(selection.rows))
    assert selection.kept + sum(selection.dropped.values()) == selection.samples
    return rows


def kept(selection: Selection) -> list[tuple[str, int]]:
    return [(row["problem_id"], row["index"]) for row in trained(selection)]


def test_the_best_half_of_each_problem_rounded_up(tmp_path: Path) -> None:
    rows = [Row("a", i, reward) for i, reward in enumerate([0.5, 1.0, 0.7])]
    rows += [Row("b", 0, 0.5), Row("b", 1, 0.0)]
    selection = selected(tmp_path, rows, keep_top_percent=0.5)
    assert kept(selection) == [("a", 1), ("a", 2), ("b", 0)]  # the best first
    assert selection.above_threshold == 4
    assert selection.dropped == {"below_threshold": 1, "not_in_top": 1}
    assert selection.kept_outcomes == {"compiled": 1, "passed": 1, "wrong_answer": 1}
    assert selection.mean_reward == pytest.approx(2.7 / 5)


def test_answers_that_differ_in_comments_and_white_space_count_once(tmp_path: Path) -> None:
    same = "int main() { return 1; }"
    rows = [
        Row("a", 0, 0.7, same),  # judged worse, by a time-out say
        Row("a", 1, 1.0, "int main()\n{ // one\n    return 1;\n}"),
        Row("a", 2, 1.0, same + " /* again */"),
        Row("b", 0, 1.0, same),
        Row("a", 3, 1.0, 'int main() { puts(" "); }'),
        Row("a", 4, 1.0, 'int main() { puts("  "); }'),
    ]
    selection = selected(tmp_path, rows)
    assert sorted(kept(selection)) == [("a", 1), ("a", 3), ("a", 4), ("b", 0)]
    assert selection.dropped == {"duplicate": 2}
    assert selection.summary()["sandbox_tiers"] == {"bubblewrap": 6}


def test_each_rule_drops_what_the_rules_before_it_left(tmp_path: Path) -> None:
    rows = [
        Row("a", 0, 0.0, outcome="infra_error", finish="length"),
        Row("a", 1, 0.3, finish="length"),
        Row("a", 2, 0.5, finish="length"),
        Row("a", 3, 0.5, "same"),
        Row("a", 4, 0.5, "same"),
    ]
    selection = selected(tmp_path, rows)
    assert kept(selection) == [("a", 3)]
    assert selection.dropped == {
        "below_threshold": 1,
        "cut_off": 1,
        "duplicate": 1,
        "infra_error": 1,
    }


def test_failures_of_ours_are_neither_kept_nor_counted_as_zero(tmp_path: Path) -> None:
    rows = [Row("a", 0, 1.0, outcome="infra_error"), Row("a", 1, 1.0)]
    selection = selected(tmp_path, rows)
    assert kept(selection) == [("a", 1)]
    assert selection.mean_reward == 1.0
    assert selection.judged.tolist() == selection.solved.tolist() == [1]


def test_problems_that_all_or_none_of_their_samples_solve(tmp_path: Path) -> None:
    rows = [Row("all", 0, 1.0), Row("all", 1, 1.0), Row("all", 2, 0.0, outcome="infra_error")]
    rows += [Row("none", 0, 0.7), Row("none", 1, 0.5)]
    rows += [Row("some", 0, 1.0), Row("some", 1, 0.7)]
    problems = [problem("all"), problem("none"), problem("some")]
    every = selected(tmp_path / "every", rows, problems=problems)
    assert every.kept == 6
    assert list(zip(every.judged, every.solved, strict=True)) == [(2, 2), (2, 0), (2, 1)]
    without = selected(tmp_path / "all", rows, problems=problems, drop_solved_by_all=True)
    assert {name for name, _ in kept(without)} == {"none", "some"}
    assert without.dropped == {"infra_error": 1, "solved_by_all": 2}
    without = selected(tmp_path / "none", rows, problems=problems, drop_solved_by_none=True)
    assert {name for name, _ in kept(without)} == {"all", "some"}
    assert without.dropped["solved_by_none"] == 2


def test_without_tests_what_compiles_is_solved(tmp_path: Path) -> None:
    rows = [Row("a", 0, 0.5), Row("a", 1, 0.3), Row("a", 2, 0.0)]
    selection = selected(tmp_path, rows, problems=[problem("a", tests=False)])
    assert selection.solved.tolist() == [2]


def test_a_cap_for_each_problem_and_one_for_all(tmp_path: Path) -> None:
    rows = [Row("a", i, 1.0 if i == 5 else 0.7) for i in range(8)]
    rows += [Row("b", 0, 0.5), Row("b", 1, 0.5)]
    selection = selected(tmp_path / "some", rows, keep_top_percent=0.5, max_per_problem=2)
    assert kept(selection)[0] == ("a", 5)
    assert [name for name, _ in kept(selection)] == ["a", "a", "b"]
    assert selection.dropped == {"not_in_top": 5, "over_cap": 2}
    fewer = selected(tmp_path / "few", rows, max_per_problem=2, max_train_samples=3)
    assert kept(fewer)[:2] == kept(selection)[:2]
    assert fewer.dropped == {"over_cap": 6, "over_max_train_samples": 1}


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_shards_does_not_matter(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    rows = [
        Row(f"p{p}", i, draw.choice([0.0, 0.5, 0.7, 1.0]), f"int x = {draw.randrange(6)};")
        for p in range(20)
        for i in range(8)
    ]
    rules: dict[str, Any] = {"keep_top_percent": 0.6, "max_per_problem": 2, "max_train_samples": 30}

    def chosen(name: str, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        selection = selected(tmp_path / name, rows, seed=seed, **rules)
        rows_there = trained(selection)
        for row in rows_there:
            del row["shard"]
        return rows_there, selection.summary()

    expected = chosen("first", 0)
    assert 20 < expected[1]["kept"] <= 30
    for name in ("second", "third"):
        draw.shuffle(rows)
        assert chosen(name, 0) == expected
    assert chosen("another seed", 1)[0] != expected[0]


def plainly(rows: list[Row], keep: float, cap: int) -> set[tuple[str, int]]:
    """What the rules say, one problem after the other; no two rows of one may tie."""
    found = set()
    for name in {row.problem for row in rows}:
        own = [row for row in rows if row.problem == name and row.outcome is None]
        if len({row.reward == 1 for row in own}) < 2:  # solved by all, or by none
            continue
        good = [row for row in own if row.reward >= 0.5 and row.finish == "stop"]
        best = {row.code: row for row in sorted(good, key=lambda row: row.reward)}
        ranked = sorted(best.values(), key=lambda row: row.reward, reverse=True)
        found |= {(name, row.number) for row in ranked[: math.ceil(keep * len(ranked))][:cap]}
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_rules_do_what_a_plain_reading_of_them_says(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    rows = []
    for problem_number in range(12):
        rewards = draw.sample([n / 256 for n in range(256)], 10)
        if problem_number % 3:
            rewards[draw.randrange(10)] = 1.0
        for number, reward in enumerate(rewards):
            row = Row(f"p{problem_number}", number, reward, f"int x{number % 7};")
            finish = "length" if draw.random() < 0.1 else "stop"
            lost = "infra_error" if draw.random() < 0.1 else None
            rows.append(row._replace(finish=finish, outcome=lost))
    selection = selected(
        tmp_path,
        rows,
        drop_solved_by_all=True,
        drop_solved_by_none=True,
        keep_top_percent=0.6,
        max_per_problem=2,
    )
    expected = plainly(rows, 0.6, 2)
    assert set(kept(selection)) == expected
    assert len(expected) > 6


def test_a_32_bit_reward_reaches_its_threshold(tmp_path: Path) -> None:
    assert selected(tmp_path, [Row("a", 0, 0.7)], reward_threshold=0.7).kept == 1


def test_no_sample_of_reward_zero_is_kept(tmp_path: Path) -> None:
    assert not selected(tmp_path, [Row("a", 0, 0.0)], reward_threshold=1e-9).rows


def test_too_few_samples_for_failures_of_ours_are_no_fault_of_the_model(tmp_path: Path) -> None:
    lost = Row("a", 1, 0.0, outcome="infra_error")
    selection = selected(tmp_path, [Row("a", 0, 0.5), lost])
    selection.require(1)
    with pytest.raises(InfraError, match=r"1 could not be judged .*: the same command judges"):
        selection.require(2)
    with pytest.raises(HaloforgeError, match=r"raft.min_samples=3 are wanted; lower that"):
        selection.require(3)


def test_too_few_samples_are_refused_in_one_line(tmp_path: Path) -> None:
    selection = selected(tmp_path, [Row("a", 0, 0.5), Row("a", 1, 0.0)])
    selection.require(1)
    with pytest.raises(HaloforgeError, match=r"cycle 1: 1 samples .*raft.min_samples=2 ") as error:
        selection.require(2)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"raft.max_train_samples is less than raft.min_samples"):
        RaftSettings(max_train_samples=2, min_samples=3)


def test_every_row_says_where_it_comes_from(tmp_path: Path) -> None:
    rows = [Row("a", i, 1.0 - 0.3 * (i % 2)) for i in range(20)]
    selection = selected(tmp_path, rows, prompts="problems/own.jsonl")
    found = trained(selection)
    assert len(found) == 20
    assert {row["shard"] for row in found} == {
        f"cycle_1/samples/00000{n}.parquet" for n in (1, 2, 3)
    }
    for row in found:
        (stored,) = (
            other
            for other in pq.read_table(tmp_path / row["shard"]).to_pylist()
            if other["sample_id"] == row["sample_id"]
        )
        for name in ("problem_id", "cycle", "index", "policy", "completion"):
            assert row[name] == stored[name]
        assert row["problem_source"] == "problems/own.jsonl"
        assert (row["outcome"], round(row["reward"], 3)) == (
            ("wrong_answer", 0.7) if row["index"] % 2 else ("passed", 1.0)
        )


def test_earlier_cycles_follow_and_repeat_nothing(tmp_path: Path) -> None:
    def code(number: int) -> str:
        return f"int main() {{ return {number}; }}"

    problems = [problem("a"), problem("b")]
    rules: dict[str, Any] = {"problems": problems, "train_on": "all", "max_train_samples": 4}
    cycles = [
        [Row("a", 0, 0.7, code(1)), Row("a", 1, 1.0, code(2)), Row("b", 0, 0.5, code(3))],
        [Row("a", 0, 0.7, code(4)), Row("b", 0, 1.0, code(3) + " // as before")],
        [Row("a", 0, 0.5, code(5)), Row("a", 1, 0.0, code(1))],
    ]
    runs = [selected(tmp_path, rows, cycle, **rules) for cycle, rows in enumerate(cycles, 1)]

    def order(selection: Selection) -> list[tuple[int, str, int]]:
        return [(row["cycle"], row["problem_id"], row["index"]) for row in trained(selection)]

    first, second = [(1, "a", 1), (1, "a", 0), (1, "b", 0)], [(2, "b", 0), (2, "a", 0)]
    assert order(runs[0]) == first
    assert order(runs[1]) == second + first[:2]
    assert order(runs[2]) == [(3, "a", 0), *second, first[0]]
    assert [run.earlier.duplicate_of_earlier for run in runs] == [0, 1, 1]
    assert [run.earlier.over_max_train_samples for run in runs] == [0, 0, 1]
    names = [row["sample_id"] for row in trained(runs[2])]
    assert len(set(names)) == len(names) == runs[2].rows
    assert trained(runs[2])[-1]["shard"] == "cycle_1/samples/000001.parquet"


def test_a_cycle_trains_on_its_own_alone_by_default(tmp_path: Path) -> None:
    selected(tmp_path, [Row("a", 0, 1.0)], 1)
    assert [row["cycle"] for row in trained(selected(tmp_path, [Row("a", 1, 1.0)], 2))] == [2]


def test_what_is_stored_is_not_trusted_blindly(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="problem 'a' is not in the run"):
        selected(tmp_path / "other", [Row("a", 0, 1.0)], problems=[problem("b")])
    write_cycle(tmp_path, 1, [Row("a", 0, 1.0)])
    (tmp_path / "cycle_1" / "verdicts" / "000001.parquet").write_bytes(b"torn")
    with pytest.raises(InfraError, match=r"000001.parquet: .* cannot be read"):
        selected(tmp_path, [Row("a", 1, 1.0)])
