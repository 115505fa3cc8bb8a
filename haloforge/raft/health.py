"""Watching for collapse: a policy that learns from itself may come to say one thing only.

Rising rewards hide it: a policy that prints one accepted program for every problem compiles well.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from haloforge.raft.answers import Answer

FEW_STEPS = 10
"""Optimizer steps of a cycle below which it is said that they are few."""
ENTROPY_FALL = 0.5
DUPLICATES, TRIVIAL = 0.5, 0.2
RISE = 2.0
TOKENS = 0.5, 2.0


@dataclass(frozen=True)
class Health:
    """Of a cycle's judged samples; failures of ours are not among them.

    `duplicates` is the share of answers that repeat another of their problem but for comments and
    white space, `trivial` the share that could pass no test (verify/trivial.py). `mean_tokens` are
    a sample's. `answer_entropy` is the mean over problems with two samples or more of the entropy
    of their distinct answers over the logarithm of the number of samples: 1 where all differ, 0
    where all are the same; None where no problem has two. `nats_per_token` is the mean
    negative log-probability at temperature 1 of the tokens drawn, where samples hold theirs
    (`rollout.logprobs`), else None: an estimate of the policy's entropy where they are drawn at 1.
    """

    duplicates: float
    trivial: float
    mean_tokens: float
    answer_entropy: float | None
    nats_per_token: float | None


class HealthMeter:
    """Takes the judged samples one by one; keeps 12 bytes of each."""

    def __init__(self) -> None:
        self._problems, self._forms = array("i"), array("Q")
        self._trivial = self._tokens = self._weighed_tokens = 0
        self._logprobs = 0.0

    def add(self, problem: int, answer: Answer, tokens: int, logprob_sum: float | None) -> None:
        """One sample of the problem at this place, of so many tokens."""
        self._problems.append(problem)
        self._forms.append(answer.form)
        self._trivial += answer.trivial
        self._tokens += tokens
        if logprob_sum is not None:
            self._weighed_tokens += tokens
            self._logprobs += logprob_sum

    def health(self) -> Health:
        """What was measured so far."""
        number = len(self._forms)
        if not number:
            return Health(0.0, 0.0, 0.0, None, None)
        problems = np.frombuffer(self._problems, np.int32)
        forms = np.frombuffer(self._forms, np.uint64)
        # A form is that of one problem's answer: equal forms are of the same problem.
        _, first, times = np.unique(forms, return_index=True, return_counts=True)
        weighed = self._weighed_tokens
        return Health(
            duplicates=1 - len(first) / number,
            trivial=self._trivial / number,
            mean_tokens=self._tokens / number,
            answer_entropy=_answer_entropy(problems, problems[first], times),
            nats_per_token=-self._logprobs / weighed if weighed else None,
        )


def _answer_entropy(
    problems: "np.ndarray[Any, Any]", of: "np.ndarray[Any, Any]", times: "np.ndarray[Any, Any]"
) -> float | None:
    """`of` is the problem of each distinct answer, `times` how often that was given."""
    samples = np.bincount(problems)
    shares = times / samples[of]
    entropies = np.bincount(of, weights=-shares * np.log(shares), minlength=len(samples))
    several = samples > 1
    if not several.any():
        return None
    return float((entropies[several] / np.log(samples[several])).mean())


def warnings(cycles: Sequence[Health]) -> list[str]:
    """One line for each sign of a collapse in the last of `cycles`, which begin with the first.

    The signs: answer entropy below half of the first cycle's; more than 50% duplicates, or more
    than 20% trivial answers, and twice as many as in the first; answers less than half or more than
    twice as long as there.
    """
    if len(cycles) < 2:
        return []
    first, last = cycles[0], cycles[-1]
    found = []
    then, now = first.answer_entropy, last.answer_entropy
    if then is not None and now is not None and now < ENTROPY_FALL * then:
        found.append(
            f"the answers to a problem grow alike: their entropy is {now:.2f}, was {then:.2f} in "
            "the first cycle; raise raft.temperature, or train less"
        )
    if last.duplicates > max(DUPLICATES, RISE * first.duplicates):
        found.append(
            f"{last.duplicates:.0%} of the answers repeat another, {first.duplicates:.0%} did in "
            "the first cycle; raise raft.temperature, or train less"
        )
    if last.trivial > max(TRIVIAL, RISE * first.trivial):
        found.append(
            f"{last.trivial:.0%} of the answers can pass no test, {first.trivial:.0%} in the first "
            "cycle; raise raft.reward_threshold, or give the problems tests"
        )
    shortest, longest = (factor * first.mean_tokens for factor in TOKENS)
    if longest and not shortest <= last.mean_tokens <= longest:
        found.append(
            f"answers are {last.mean_tokens:.0f} tokens long, were {first.mean_tokens:.0f} in the "
            "first cycle; look at what they say"
        )
    return found
