"""Selection: which judged samples the next policy learns from."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from haloforge.schema import Outcome, digest
from haloforge.store.shards import Judged


@dataclass(frozen=True)
class Selection:
    """The kept samples, and counts of how all samples fared.

    `dropped` counts by the rule that dropped a sample, `kept_outcomes` the kept ones by outcome,
    `sandbox_tiers` all by the sandbox that they were judged in.
    """

    kept: list[Judged]
    samples: int
    above_threshold: int
    dropped: dict[str, int]
    outcomes: dict[str, int]
    kept_outcomes: dict[str, int]
    sandbox_tiers: dict[str, int]
    mean_reward: float

    def summary(self) -> dict[str, Any]:
        """The counts as plain values, shares as fractions of all samples."""
        return {
            "samples": self.samples,
            "outcomes": self.outcomes,
            "mean_reward": self.mean_reward,
            "share_above_threshold": self.above_threshold / max(1, self.samples),
            "kept": len(self.kept),
            "share_kept": len(self.kept) / max(1, self.samples),
            "kept_outcomes": self.kept_outcomes,
            "dropped": self.dropped,
            "sandbox_tiers": self.sandbox_tiers,
        }


def select(judged: Iterable[Judged], threshold: float, keep_top: float, seed: int) -> Selection:
    """Keeps, of each problem's samples with a reward of `threshold` or more, the best `keep_top`.

    `keep_top` is a fraction in (0, 1], rounded up. Left out before: failures of ours, answers cut
    off by the length limit (training on them would teach to stop half way), rewards below
    `threshold`, and all but one of equal answers to a problem. Ties are broken by a draw from
    `seed`. The best of n samples above a threshold is the ranking of RAFT (Dong et al. 2023).
    """
    dropped: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    tiers: Counter[str] = Counter()
    rewards: list[float] = []
    above = 0
    by_problem: dict[str, dict[str, Judged]] = {}
    for row in judged:
        outcome, reward = row.verdict["outcome"], row.verdict["reward"]
        outcomes[outcome] += 1
        tiers[row.verdict["sandbox_tier"]] += 1
        if outcome == Outcome.INFRA_ERROR:
            dropped["infra_error"] += 1
            continue
        rewards.append(reward)
        # The shards hold 32-bit rewards, so that 0.7 comes back as 0.69999999.
        if reward < threshold - 1e-6:
            dropped["below_threshold"] += 1
            continue
        above += 1
        if row.sample["finish_reason"] == "length":
            dropped["cut_off"] += 1
            continue
        answers = by_problem.setdefault(row.sample["problem_id"], {})
        answer = row.sample["completion"].strip()
        other = answers.setdefault(answer, row)
        if other is not row:
            dropped["duplicate"] += 1
            answers[answer] = min(other, row, key=lambda r: r.sample["index"])

    def rank(row: Judged) -> tuple[float, str]:
        return -row.verdict["reward"], digest(seed, row.sample["sample_id"])

    kept = []
    for problem_id in sorted(by_problem):
        ranked = sorted(by_problem[problem_id].values(), key=rank)
        number = math.ceil(keep_top * len(ranked) - 1e-9)
        kept += ranked[:number]
        dropped["not_in_top"] += len(ranked) - number
    return Selection(
        kept=kept,
        samples=sum(outcomes.values()),
        above_threshold=above,
        dropped={rule: count for rule, count in sorted(dropped.items()) if count},
        outcomes=dict(sorted(outcomes.items())),
        kept_outcomes=dict(sorted(Counter(row.verdict["outcome"] for row in kept).items())),
        sandbox_tiers=dict(sorted(tiers.items())),
        mean_reward=sum(rewards) / max(1, len(rewards)),
    )
