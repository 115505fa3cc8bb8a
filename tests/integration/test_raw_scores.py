"""Completions judged as they stand beside what is found in them, by the real verifier; and stored
samples of a benchmark scored again."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from haloforge.benchmark.environment import environment
from haloforge.benchmark.scoring import score
from haloforge.config import load_settings
from haloforge.rescore import plan, rescore
from haloforge.schema import Problem, Test
from haloforge.session import Session
from haloforge.store.shards import Judged, ShardWriter, read_judged
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier
from tests.results import POLICY, judged

RIGHT = "print(sum(map(int, input().split())))"
ADD = Problem(
    problem_id="p0",
    prompt="Add.",
    language="python",
    judge="stdio",
    tests=[Test(stdin="1 2\n", stdout="3\n")],
)
LANGUAGE_OPEN = ADD.model_copy(update={"problem_id": "p1", "prompt": "Sum.", "language": None})
ANSWERS = {
    "fenced": (f"```python\n{RIGHT}\n```", "passed", "compile_error"),
    "as it stands": (f"{RIGHT}\n\n", "passed", "passed"),
    "no line end": (RIGHT, "passed", "passed"),
    "fenced after prose": (f"Add:\n```python\n{RIGHT}\n```", "passed", "compile_error"),
    "after prose": (f"Here is the program:\n\n{RIGHT}\n", "passed", "compile_error"),
    "wrong": ("print(4)\n", "wrong_answer", "wrong_answer"),
    "fenced in comments": (f'"""\n```python\n{RIGHT}\n```\n"""\n{RIGHT}', "passed", "passed"),
    "no code": ("I cannot.", "no_code", "compile_error"),
    "nothing": ("", "no_code", "no_code"),
}


def verifier(**settings: Any) -> Verifier:
    chosen = VerifySettings(cache=False, **settings)
    return Verifier(chosen, {"p0": ADD, "p1": LANGUAGE_OPEN})


def verdict(verifier: Verifier, problem: str = "p0", **sample: str) -> dict[str, Any]:
    return verifier.verify({"sample_id": "s", "problem_id": problem, **sample})


def test_the_completion_is_judged_as_it_stands_too() -> None:
    judge = verifier(raw=True)
    for name, (text, outcome, raw) in ANSWERS.items():
        found = verdict(judge, completion=text)
        assert (found["outcome"], found["raw_outcome"]) == (outcome, raw), name
    found = verdict(judge, code=RIGHT)
    assert (found["outcome"], found["raw_outcome"]) == ("passed", "passed")
    found = verdict(judge, problem="p1", completion="I cannot.")
    assert (found["outcome"], found["raw_outcome"]) == ("no_code", "no_code")


def test_what_is_the_same_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, ran = verifier(raw=True), list[str]()
    real = judge._judge

    def counting(answer: Any, problem: Problem) -> Any:
        ran.append(answer.code)
        return real(answer, problem)

    monkeypatch.setattr(judge, "_judge", counting)
    verdict(judge, completion=ANSWERS["no line end"][0])
    assert ran == [f"{RIGHT}\n"]
    verdict(judge, completion=ANSWERS["fenced after prose"][0])
    assert len(ran) == 3
    verdict(judge, completion=ANSWERS["fenced"][0])
    assert len(ran) == 4, "no program begins with a fence"


def test_it_is_not_unless_asked_for() -> None:
    assert verdict(verifier(), completion=RIGHT)["raw_outcome"] is None


def test_a_failure_of_ours_on_the_raw_text_alone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = verifier(raw=True)
    real = judge._judge

    def failing(answer: Any, problem: Problem) -> Any:
        if "```" in answer.code:
            raise OSError("the disk is full")
        return real(answer, problem)

    monkeypatch.setattr(judge, "_judge", failing)
    found = verdict(judge, completion=ANSWERS["fenced after prose"][0])
    assert (found["outcome"], found["raw_outcome"]) == ("passed", "infra_error")


def test_a_benchmark_s_samples_scored_again_agree(tmp_path: Path) -> None:
    problems = [ADD, LANGUAGE_OPEN]
    judge, folder = verifier(raw=True), tmp_path / "benchmark"
    texts = [text for text, _, _ in ANSWERS.values()]
    for problem in range(2):  # two commits
        with ShardWriter(folder) as shards:
            for index, text in enumerate(texts):
                sample = judged(problem, index, "", text).sample
                shards.add(sample, judge.verify(sample))
    lines = "".join(f"{problem.model_dump_json(exclude_defaults=True)}\n" for problem in problems)
    (tmp_path / "problems.jsonl").write_text(lines)
    given = {
        "benchmark.samples": len(texts),
        "benchmark.k": [1, 5],
        "verify.raw": True,
        "verify.cache": False,
        "ray.num_cpus": 1,
    }
    settings = load_settings(None, given)
    output = tmp_path / "again.parquet"
    rescoring = plan(settings, folder, str(tmp_path / "problems.jsonl"), output)
    with Session(settings) as session:
        rescore(session, rescoring)
        where = environment()
    assert where.hardware.ray_cpus == 1
    assert where.versions.keys() >= {"python", "haloforge", "ray"}
    before = list(read_judged(folder))
    verdicts = pq.read_table(output).to_pylist()
    told = ("sample_id", "outcome", "raw_outcome", "tests_passed", "reward")
    assert [[row[name] for name in told] for row in verdicts] == [
        [row.verdict[name] for name in told] for row in before
    ]
    after = [Judged(row.sample, new) for row, new in zip(before, verdicts, strict=True)]
    assert score(POLICY, problems, after, settings) == score(POLICY, problems, before, settings)
