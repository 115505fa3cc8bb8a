"""The verifier stage on real Ray Data: samples in, verdicts out, while samples still arrive."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.data import DataContext

from haloforge.groups import SAMPLES, group, judged_in
from haloforge.placement import Fleet
from haloforge.schema import SAMPLE_SCHEMA, Problem, Test, Verdict
from haloforge.verify.settings import VerifySettings
from haloforge.verify.stage import verify_stage
from haloforge.verify.stored import STORED_SCHEMA, StoredSamples

ADD = Problem(
    problem_id="add", prompt="Add.", judge="stdio", tests=[Test(stdin="1 2\n", stdout="3\n")]
)
RIGHT = "```python\nprint(sum(map(int, input().split())))\n```"
WRONG = "```python\nprint(input())\n```"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def sample(index: int, completion: str, logprob_sum: float | None = -1.5) -> dict[str, Any]:
    return {
        "sample_id": f"s{index}",
        "problem_id": "add",
        "cycle": 0,
        "index": index,
        "completion": completion,
        "finish_reason": "stop",
        "num_tokens": 7,
        "logprob_sum": logprob_sum,
        "policy": "p",
        "sampling": "t",
    }


def test_every_sample_gets_its_verdict(cluster: None) -> None:
    rows = [sample(i, RIGHT if i % 3 else WRONG, -1.5 if i % 2 else None) for i in range(12)]
    problems = ray.put({"add": ADD})
    groups = [rows[:1], rows[1:4], rows[4:]]
    samples = ray.data.from_arrow([group(each, SAMPLE_SCHEMA) for each in groups])
    settings, fleet = VerifySettings(cache=False), Fleet(2, 2, 0.5)
    judged = list(judged_in(verify_stage(samples, problems, settings, fleet)))
    assert sorted(row["index"] for row, _ in judged) == list(range(12))
    for row, found in judged:
        verdict = Verdict.model_validate(found)
        assert verdict.sample_id == row["sample_id"]
        assert verdict.outcome == ("passed" if row["index"] % 3 else "wrong_answer")
        assert verdict.sandbox_tier == "bubblewrap"
        assert row == rows[row["index"]]


def test_verdicts_come_while_samples_still_arrive(cluster: None) -> None:
    def slowly(row: dict[str, Any]) -> dict[str, Any]:
        time.sleep(1.5)
        return row | {SAMPLES: [each | {"num_tokens": int(time.time())} for each in row[SAMPLES]]}

    rows = [sample(i, RIGHT) for i in range(8)]
    source = ray.data.from_arrow([group([row], SAMPLE_SCHEMA) for row in rows])
    samples = source.map(slowly, num_cpus=1, concurrency=1)
    seen = []
    settings, fleet = VerifySettings(cache=False), Fleet(1, 1, 0.5)
    for row, verdict in judged_in(verify_stage(samples, ray.put({"add": ADD}), settings, fleet)):
        assert verdict["outcome"] == "passed"
        seen.append((time.time(), row["num_tokens"]))
    assert len(seen) == 8
    first_verdict, last_sample = min(at for at, _ in seen), max(made for _, made in seen)
    assert first_verdict < last_sample, "the stage waited for all samples"


def test_a_slow_program_holds_up_none_of_another_group(cluster: None) -> None:
    slow = "```python\nimport time\ntime.sleep(4)\nprint(3)\n```"
    rows = [sample(i, RIGHT if i else slow) for i in range(8)]
    samples = ray.data.from_arrow([group(rows[:1], SAMPLE_SCHEMA), group(rows[1:], SAMPLE_SCHEMA)])
    problems = ray.put({"add": ADD})
    settings, fleet = VerifySettings(cache=False), Fleet(1, 1, 0.5)
    came = [
        (time.monotonic(), row["index"], verdict["outcome"])
        for row, verdict in judged_in(verify_stage(samples, problems, settings, fleet))
    ]
    assert {outcome for _, _, outcome in came} == {"passed"}
    assert came[-1][1] == 0, "the slow one was waited for"
    assert came[-1][0] - came[0][0] > 1


def test_stored_samples_come_one_a_block_and_other_streams_keep_theirs(cluster: None) -> None:
    usual = DataContext.get_current().target_max_block_size
    assert usual != 1, "set by none before"
    rows = [
        {
            **dict.fromkeys(STORED_SCHEMA.names),
            "sample_id": f"s{i}",
            "problem_id": "add",
            "index": i,
        }
        for i in range(20)
    ]
    stored = StoredSamples(lambda: rows, 1).dataset()
    assert stored.materialize().num_blocks() == len(rows)
    assert DataContext.get_current().target_max_block_size == usual
