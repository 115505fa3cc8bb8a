"""Selection keeps the best, explains every drop, and is the same on every run."""

from haloforge.raft.select import select
from haloforge.schema import sample_id
from haloforge.store.shards import Judged


def judged(
    problem: str, index: int, reward: float, text: str | None = None, finish: str = "stop"
) -> Judged:
    outcome = {0.0: "compile_error", 0.5: "compiled", 0.7: "wrong_answer", 1.0: "passed"}[reward]
    name = sample_id("run", 1, problem, index)
    sample = {
        "sample_id": name,
        "problem_id": problem,
        "index": index,
        "completion": text or f"answer {problem} {index}",
        "finish_reason": finish,
    }
    verdict = {"sample_id": name, "problem_id": problem, "outcome": outcome, "reward": reward}
    return Judged(sample, {**verdict, "sandbox_tier": "bubblewrap"})


def test_the_best_half_of_each_problem_rounded_up() -> None:
    rows = [judged("a", i, reward) for i, reward in enumerate([0.5, 1.0, 0.7])]
    rows += [judged("b", 0, 0.5), judged("b", 1, 0.0)]
    selection = select(rows, threshold=0.5, keep_top=0.5, seed=0)
    kept = sorted((r.sample["problem_id"], r.verdict["reward"]) for r in selection.kept)
    assert kept == [("a", 0.7), ("a", 1.0), ("b", 0.5)]
    assert selection.above_threshold == 4
    assert selection.dropped == {"below_threshold": 1, "not_in_top": 1}


def test_equal_answers_count_once_and_cut_answers_never() -> None:
    rows = [judged("a", i, 1.0, "same") for i in range(3)]
    rows.append(judged("a", 3, 1.0, "cut", finish="length"))
    selection = select(rows, 0.5, 1.0, 0)
    assert [r.sample["index"] for r in selection.kept] == [0]
    assert selection.dropped == {"cut_off": 1, "duplicate": 2}
    assert selection.summary()["sandbox_tiers"] == {"bubblewrap": 4}


def test_failures_of_ours_are_neither_kept_nor_counted_as_zero() -> None:
    broken = judged("a", 0, 0.0)
    broken.verdict["outcome"] = "infra_error"
    selection = select([broken, judged("a", 1, 1.0)], 0.5, 1.0, 0)
    assert len(selection.kept) == 1
    assert selection.mean_reward == 1.0
    assert selection.dropped == {"infra_error": 1}


def test_order_does_not_matter_and_the_seed_does() -> None:
    rows = [judged("a", i, 1.0) for i in range(20)]

    def kept(order: list[Judged], seed: int) -> set[int]:
        return {r.sample["index"] for r in select(order, 0.5, 0.25, seed).kept}

    assert kept(rows, 1) == kept(rows[::-1], 1)
    assert kept(rows, 1) != kept(rows, 2)


def test_a_32_bit_reward_reaches_its_threshold() -> None:
    row = judged("a", 0, 0.7)
    row.verdict["reward"] = 0.699999988079071
    assert len(select([row], 0.7, 1.0, 0).kept) == 1


def test_no_sample_of_reward_zero_is_kept() -> None:
    assert not select([judged("a", 0, 0.0)], 0.5, 1.0, 0).kept
