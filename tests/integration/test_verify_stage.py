"""The verifier stage on real Ray Data: samples in, verdicts out, while samples still arrive."""

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from haloforge.placement import Fleet
from haloforge.schema import Problem, Test, Verdict
from haloforge.verify.settings import VerifySettings
from haloforge.verify.stage import verify_stage

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
    samples = ray.data.from_items(rows, override_num_blocks=12)
    judged = verify_stage(
        samples, problems, VerifySettings(cache=False), Fleet(2, 2, 0.5)
    ).take_all()
    assert len(judged) == len(rows)
    for row in judged:
        verdict = Verdict.model_validate_json(row["verdict"])
        assert verdict.sample_id == row["sample_id"]
        assert verdict.outcome == ("passed" if row["index"] % 3 else "wrong_answer")
        assert verdict.sandbox_tier == "bubblewrap"
        given = rows[row["index"]]
        kept = {key: row[key] for key in given if key != "logprob_sum"}
        assert kept == {key: value for key, value in given.items() if key != "logprob_sum"}
        empty = row["logprob_sum"] is None or math.isnan(row["logprob_sum"])
        assert empty is (given["logprob_sum"] is None)


def test_verdicts_come_while_samples_still_arrive(cluster: None) -> None:
    def slowly(row: dict[str, Any]) -> dict[str, Any]:
        time.sleep(1.5)
        return {**row, "made_at": time.time()}

    rows = [sample(i, RIGHT) for i in range(8)]
    source = ray.data.from_items(rows, override_num_blocks=8)
    samples = source.map(slowly, num_cpus=1, concurrency=1)
    seen = []
    for row in verify_stage(
        samples, ray.put({"add": ADD}), VerifySettings(cache=False), Fleet(1, 1, 0.5)
    ).iter_rows():
        assert json.loads(row["verdict"])["outcome"] == "passed"
        seen.append((time.time(), row["made_at"]))
    assert len(seen) == 8
    first_verdict, last_sample = min(at for at, _ in seen), max(made for _, made in seen)
    assert first_verdict < last_sample, "the stage waited for all samples"
