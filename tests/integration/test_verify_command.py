"""`halo-forge verify` as a user runs it: stored samples, stopped half way, and references."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from haloforge.config import load_settings
from haloforge.data.problems import choose_problems
from haloforge.rescore import plan, rescore, scores
from haloforge.schema import VERDICT_SCHEMA
from haloforge.session import Session
from tests.processes import wait_until

TESTS = [{"stdin": "1 2\n", "stdout": "3\n"}]
ADD = {"problem_id": "add", "prompt": "Add.", "language": "python", "tests": TESTS}
RIGHT, WRONG = "print(sum(map(int, input().split())))", "print(input())"
CPP = "#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b; }\n"


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "haloforge", "verify", *map(str, arguments)]


def run(*arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    return done


def test_stored_samples_are_scored_in_their_order(tmp_path: Path) -> None:
    jsonl(tmp_path / "problems.jsonl", [ADD])
    rows: list[dict[str, Any]] = [
        {"sample_id": "z", "problem_id": "add", "completion": f"```python\n{WRONG}\n```"},
        {"sample_id": "a", "problem_id": "add", "completion": f"```python\n{RIGHT}\n```"},
        {"sample_id": "m", "language": "cpp", "tests": TESTS, "code": CPP},
        {"problem_id": "add", "completion": "I cannot do that."},
        {"sample_id": "b", "code": "int main() { return x; }", "language": "c", "note": "?"},
    ]
    samples = jsonl(tmp_path / "samples.jsonl", rows)
    wanted = ("--problems", "problems.jsonl", "--output", "verdicts.parquet")
    done = run("--input", samples, *wanted, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fields not used: note" in done.stderr
    table = pq.read_table(tmp_path / "verdicts.parquet")
    assert table.schema.equals(VERDICT_SCHEMA)
    verdicts = table.to_pylist()
    ids = [verdict["sample_id"] for verdict in verdicts]
    assert [*ids[:3], ids[4]] == ["z", "a", "m", "b"]
    assert [verdict["outcome"] for verdict in verdicts] == [
        "wrong_answer",
        "passed",
        "passed",
        "no_code",
        "compile_error",
    ]
    assert [verdict["problem_id"] for verdict in verdicts[:2]] == ["add", "add"]
    for line in ("passed         2        40.0%  1.00", "mean reward 0.540", "python 3", "gcc 1"):
        assert line in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "problems.jsonl",
        "samples.jsonl",
        "verdicts.parquet",
    ]

    before = (tmp_path / "verdicts.parquet").read_bytes()
    again = run("--input", samples, *wanted, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "Ray dashboard" not in again.stderr
    told = json.loads(run("--input", samples, *wanted, "--json", cwd=tmp_path).stdout)
    assert told["outcomes"]["passed"] == {"samples": 2, "share": 0.4, "mean_reward": 1.0}
    assert (told["scored"], told["complete"]) == (5, True)
    other = run("--input", samples, *wanted, "--verifier", "gcc", cwd=tmp_path)
    assert other.returncode == 2
    assert "verify.verifier: was not set, is now gcc" in other.stderr
    assert (tmp_path / "verdicts.parquet").read_bytes() == before


def test_stopped_half_way_it_goes_on(tmp_path: Path) -> None:
    """Parquet in; what was judged before the stop is not judged again, and all is in order."""
    rows = [
        {**ADD, "sample_id": f"s{n}", "completion": f"```python\nimport time;time.sleep(.4)#{n}```"}
        for n in range(100)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "samples.parquet")
    arguments = (
        "--input",
        "samples.parquet",
        "--output",
        "v.parquet",
        "--set",
        "verify.cache=false",
    )
    with subprocess.Popen(
        command(*arguments), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as driver:
        commits = tmp_path / "v.parquet.work" / "commits"
        assert wait_until(lambda: commits.is_dir() and list(commits.iterdir()), 200)
        driver.terminate()
        assert "the same command goes on from here" in driver.communicate(timeout=100)[1]
    assert driver.returncode == 130
    assert not (tmp_path / "v.parquet").exists()
    judged = {
        row["sample_id"]: row["run_ms"]
        for path in (tmp_path / "v.parquet.work" / "verdicts").iterdir()
        for row in pq.read_table(path).to_pylist()
    }
    assert 0 < len(judged) < 100

    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verdicts = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [verdict["sample_id"] for verdict in verdicts] == [f"s{n}" for n in range(100)]
    assert {verdict["outcome"] for verdict in verdicts} == {"wrong_answer"}
    kept = {v["sample_id"]: v["run_ms"] for v in verdicts if v["sample_id"] in judged}
    assert kept == judged
    assert not commits.exists()


def test_more_samples_than_one_pass_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haloforge.rescore.PASS_ROWS", 4)
    check = tmp_path / "check.sh"
    check.write_text('#!/bin/sh\ngrep -q right "$1"\n')
    rows: list[dict[str, Any]] = [{"code": code} for code in ("right", "wrong", "right") * 3]
    samples = jsonl(tmp_path / "samples.jsonl", rows)
    settings = load_settings(None, {"verify.verifier": f"cmd:{check} {{file}}", "ray.num_cpus": 1})
    output = tmp_path / "v.parquet"
    rescoring = plan(settings, samples, None, output)
    with subprocess.Popen(["/bin/sleep", "600"]) as other:
        with Session(settings) as session:
            rescore(session, rescoring)
        assert other.poll() is None, "the session ended a process that it did not start"
        other.kill()
    outcomes = pq.read_table(output)["outcome"].to_pylist()
    assert outcomes == ["passed", "wrong_answer", "passed"] * 3
    assert scores(output).outcomes == {"passed": 6, "wrong_answer": 3}
    assert str(tmp_path) not in str(pq.read_schema(output).metadata)


def test_verdicts_lost_to_failures_of_ours_are_judged_again(tmp_path: Path) -> None:
    """The own verifier fails on some while a file is there; the output is taken up again."""
    broken, calls = tmp_path / "broken", tmp_path / "calls"
    (tmp_path / "own.py").write_text(f"""
import pathlib
from haloforge.verify.own import Judgement, Outcome

class Own:
    def judge(self, code, problem, sandbox):
        with open({str(calls)!r}, "a") as file:
            file.write(code + " ")
        if "odd" in code and pathlib.Path({str(broken)!r}).exists():
            raise OSError("the disk is full")
        return Judgement(Outcome.PASSED)
""")
    broken.touch()
    rows: list[dict[str, Any]] = [
        {"sample_id": str(n), "code": "odd" if n % 2 else "even"} for n in range(6)
    ]
    samples, output = jsonl(tmp_path / "samples.jsonl", rows), tmp_path / "v.parquet"
    name = f"{tmp_path / 'own.py'}:Own"
    settings = load_settings(
        None, {"verify.verifier": name, "verify.cache": False, "ray.num_cpus": 1}
    )
    outcomes = []
    for _ in range(3):
        rescoring = plan(settings, samples, None, output)
        if not rescoring.complete:
            calls.write_text("")
            with Session(settings) as session:
                rescore(session, rescoring)
        table = pq.read_table(output)
        assert table["sample_id"].to_pylist() == list("012345")
        outcomes.append(table["outcome"].to_pylist())
        broken.unlink(missing_ok=True)
    assert outcomes == [["passed", "infra_error"] * 3, ["passed"] * 6, ["passed"] * 6]
    assert calls.read_text() == "odd odd odd "  # the second time; the third had nothing to do
    assert not rescoring.work.exists()


def test_references_that_fail_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    problems: list[dict[str, Any]] = [
        {**ADD, "problem_id": "sound", "reference": {"python": RIGHT, "cpp": CPP}},
        {**ADD, "problem_id": "broken", "prompt": "Sum.", "reference": {"python": WRONG}},
        {**ADD, "problem_id": "bare", "prompt": "Total."},
    ]
    source = jsonl(tmp_path / "problems.jsonl", problems)
    done = run("--references", source, "--output", "failing.txt", cwd=tmp_path)
    assert done.returncode == 1
    assert "broken   python    wrong_answer  test 1: printed '1 2\\n'" in done.stdout
    assert "2 problems, 3 solutions: 1 fail" in done.stdout
    assert "sound" not in done.stdout
    assert (tmp_path / "failing.txt").read_text() == "broken\n"
    assert run("--references", source, "--output", "failing.txt", cwd=tmp_path).returncode == 2

    settings = load_settings(
        None, {"raft.prompts": str(source), "raft.exclude": str(tmp_path / "failing.txt")}
    )
    problems_left, excluded = choose_problems(settings.raft, None)
    assert [problem.problem_id for problem in problems_left] == ["sound", "bare"]
    assert excluded == 1
