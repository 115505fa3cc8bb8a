"""What a run of `tests/chaos.py` must train on, worked out anew from what it has committed.

The rules are those of "What is trained on" in haloforge/raft/README.md, as far as `RULES` ask for
them, and none of the code that selects is used. The project's own are only how a completion is read
(`answer_of`), which programs count as the same (`normalise`), and the number that a sample draws
from the seed (`digest`): what those do has tests of its own.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from haloforge.data.normalise import normalise
from haloforge.schema import Problem, digest
from haloforge.verify.extract import answer_of

Row = Mapping[str, Any]

LANGUAGE, SEED = "python", 0
RULES = {"reward_threshold": 1.0, "keep_top_percent": 1.0}
"""The run's settings of selection; all others are as they are by default."""

# Judges by the text alone, at a pace at which there is time to kill something.
VERIFIER = """
import time, zlib
from haloforge.verify.own import Judgement, Outcome

class ByText:
    def judge(self, code, problem, sandbox):
        time.sleep(0.15)
        right = zlib.crc32(code.encode()) % 2
        return Judgement(Outcome.PASSED if right else Outcome.WRONG_ANSWER)
"""

# What the row of a sample that was trained on repeats.
_OF_SAMPLE = ("problem_id", "cycle", "index", "policy", "completion")
_OF_VERDICT = ("reward", "outcome")
_PROBLEM = Problem(problem_id="any", prompt="Say.", language=LANGUAGE)


def faults(stored: Iterable[tuple[Row, Row]], trained: Sequence[Row]) -> list[str]:
    """What is wrong with the rows `trained` on in a cycle that has `stored` these samples, each
    with its verdict."""
    rows = {sample["sample_id"]: (sample, verdict) for sample, verdict in stored}
    found = [
        f"{name} was judged {verdict['outcome']}, reward {verdict['reward']:g}"
        for name, (sample, verdict) in rows.items()
        if not _rightly_judged(sample, verdict)
    ]
    wanted = kept(rows.values())
    names = [row["sample_id"] for row in trained]
    found += [f"{name} is not trained on" for name in sorted(set(wanted) - set(names))]
    found += [f"{name} must not be trained on" for name in sorted(set(names) - set(wanted))]
    times = Counter(names)
    found += [f"{name} is trained on {times[name]} times" for name in times if times[name] > 1]
    if not found and (
        names != wanted or [row["rank"] for row in trained] != list(range(len(trained)))
    ):
        found.append("what is trained on is in another order")
    for row in trained:
        sample, verdict = rows.get(row["sample_id"], (None, None))
        if sample is not None and verdict is not None:
            same = [row[name] == sample[name] for name in _OF_SAMPLE]
            same += [row[name] == verdict[name] for name in _OF_VERDICT]
            found += [] if all(same) else [f"{row['sample_id']} is not trained on as it is stored"]
    return found


def kept(rows: Iterable[tuple[Row, Row]]) -> list[str]:
    """The ids of those to train on, in order. All that are good enough have the same reward: of
    answers that are the same the first by its index stays, as selection has it, and the order is
    that of the draw alone."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for sample, verdict in rows:
        if (
            verdict["outcome"] == "infra_error"
            or verdict["reward"] < RULES["reward_threshold"]
            or sample["finish_reason"] == "length"
        ):
            continue
        program = sample["problem_id"], normalise(_code(sample) or "", LANGUAGE)
        this = sample["index"], sample["sample_id"]
        first[program] = min(this, first.get(program, this))
    return sorted((name for _, name in first.values()), key=lambda name: digest(SEED, name))


def _code(sample: Row) -> str | None:
    answer = answer_of(sample, _PROBLEM, "auto", own=True)
    return answer.code if answer else None


def _rightly_judged(sample: Row, verdict: Row) -> bool:
    """Whether the verdict is the sample's, and as `VERIFIER` says or a failure of ours."""
    code = _code(sample)
    if verdict["outcome"] == "infra_error":
        right, reward = "infra_error", 0.0
    elif code is None:
        right, reward = "no_code", 0.0
    elif zlib.crc32(code.encode()) % 2:
        right, reward = "passed", 1.0
    else:
        right, reward = "wrong_answer", 0.5
    found = verdict["sample_id"], verdict["outcome"], verdict["reward"]
    return found == (sample["sample_id"], right, reward)
