"""`halo-forge data validate` as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from haloforge.data.catalogue import find_entry
from haloforge.data.problems import starter_problems
from haloforge.data.sft import to_chatml
from haloforge.data.sidecar import read_sidecar, write_sidecar

BESIDE = Path(__file__).parents[3] / "shared" / "data"
MBPP = Path(os.environ.get("HALOFORGE_TEST_DATA", BESIDE)) / "mbpp_train.jsonl"
WRONG = 927  # the one whose solution fails its own tests
TESTS = [{"stdin": "1 2\n", "stdout": "3\n"}]
ADD = "print(sum(map(int, input().split())))"


def sft(question: str, answer: str = "```cpp\nint main() {}\n```", **others: Any) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"text": to_chatml(turns), **others})


def problem(prompt: str, code: str, **others: Any) -> str:
    row = {"prompt": prompt, "language": "python", "tests": TESTS, "reference": {"python": code}}
    return json.dumps(row | others)


def run(*arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "haloforge", "data", "validate", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stderr
    return done


def listed(report: dict[str, Any], kind: str, of: str = "faults") -> list[tuple[str, int]]:
    """File and line of the rows named under a kind."""
    found = report[of][kind]
    assert found["rows"] >= len(found["listed"])
    return [(Path(each["file"]).name, each["line"]) for each in found["listed"]]


def test_faults_are_told_and_bad_rows_are_written_apart(tmp_path: Path, tiny_model: Path) -> None:
    long = " ".join(f"word{number}" for number in range(60))
    task = starter_problems("test")[0]
    rows = [
        sft("Print 1.", license="MIT", stars="é"),
        "{not json",
        sft("Print 1.", license="MIT"),
        "",
        sft("Print 2.", ""),
        sft(f"Print {long}"),
        sft(f"Print {long} twice."),
        sft(f"Please solve:\n{task.prompt}"),
        sft(" x" * 5000),
        json.dumps({"messages": [{"role": "user", "content": "?"}]}),
        sft("The last one has no line end."),
    ]
    problems = [
        problem("Add.", "print(4)", problem_id="wrong"),
        problem("Add.", ADD, problem_id="right"),
        problem("Add again.", ADD, problem_id="right"),
        problem("Add once more.", ADD, problem_id="other", language="go"),
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "problems.jsonl").write_text("\n".join(problems) + "\n")
    sidecar: dict[str, Any] = {"filters": {}, "seed": None, "read": 4, "left_out": {}, "rows": 4}
    origin: dict[str, Any] = {"origin": "here", "revision": None, "licence": "MIT"}
    write_sidecar(tmp_path / "problems.jsonl", **sidecar, **origin)
    done = run(
        *("rows.jsonl", "problems.jsonl", "--model", tiny_model, "--max-tokens", "4000"),
        *("--report", "report.json", "--fix", "good/rows.jsonl", "--max-length", "100"),
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    found = {
        kind: listed(report, kind) for kind, of_kind in report["faults"].items() if of_kind["rows"]
    }
    assert found == {
        "json": [("rows.jsonl", 2)],
        "roles": [("rows.jsonl", 10)],
        "empty": [("rows.jsonl", 5)],
        "huge": [("rows.jsonl", 9)],
        "problem_id": [("problems.jsonl", 3)],
        "duplicate": [("rows.jsonl", 3)],
        "reference": [("problems.jsonl", 1)],
        "contaminated": [("rows.jsonl", 8)],
    }
    assert f"{task.problem_id} of starter/test" in str(report["faults"]["contaminated"]["listed"])
    assert listed(report, "near_duplicate", "warnings") == [("rows.jsonl", 7)]
    assert (report["rows"], report["good"], report["wrong"]) == (14, 6, 8)
    assert report["references"] == {"judged": 4, "skipped": None}
    assert {"starter/test", "suite/humaneval"} <= {*report["contamination"]["compared"]}
    assert "not at hand" in report["contamination"]["not_at_hand"]["suite/mbpp-plus"]
    assert report["licences"] == {"not told": 12, "MIT": 2}
    assert report["tokens"]["max"] > 4000
    assert 0 < report["tokens"]["share_over_max_length"] < 1
    assert "14 rows: 6 good, 8 wrong" in done.stdout
    assert "suite/mbpp-plus" in done.stdout

    good = [rows[0], rows[5], rows[6], rows[10], problems[1], problems[3]]
    output, rejected = tmp_path / "good" / "rows.jsonl", tmp_path / "good" / "rows.rejected.jsonl"
    assert output.read_bytes() == "".join(f"{row}\n" for row in good).encode()
    apart = [json.loads(line) for line in rejected.read_text("utf-8").splitlines()]
    every = [*(row for row in rows if row), *problems]
    assert sorted([*good, *(row["row"].rstrip("\n") for row in apart)]) == sorted(every)
    assert [row["line"] for row in apart] == [2, 3, 5, 8, 9, 10, 1, 3]
    assert [row["reasons"][0]["fault"] for row in apart][:2] == ["json", "duplicate"]
    beside, of_rejected = read_sidecar(output), read_sidecar(rejected)
    assert beside is not None and of_rejected is not None
    assert (beside.read, beside.rows, of_rejected.rows) == (14, 6, 8)
    assert sum(beside.left_out.values()) == 8
    assert [parent.origin for parent in beside.parents] == ["here"]

    again = run(output, "--no-references", "--no-contamination", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "references: not judged" in again.stdout
    assert "benchmarks: not compared" in again.stdout


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "good.rejected.jsonl").write_text(sft("x") + "\n")
    for arguments in (
        ("none.jsonl",),
        (),
        ("good.rejected.jsonl", "--fix", "good.jsonl"),
        ("good.rejected.jsonl", "--fix", "good.rejected.jsonl"),
        ("good.rejected.jsonl", "--fix", "."),
        ("good.rejected.jsonl", "--report", "good.rejected.jsonl"),
        ("good.rejected.jsonl", "--fix", "g.jsonl", "--report", "g.jsonl"),
        ("good.rejected.jsonl", "--against", "x", "--no-contamination"),
    ):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
    assert [path.name for path in tmp_path.iterdir()] == ["good.rejected.jsonl"]


def of_mbpp(tmp_path: Path, every: int) -> Path:
    """The problems of MBPP's train part, and at least the wrong one of them."""
    if not MBPP.is_file():
        pytest.skip(f"{MBPP} is not here (HALOFORGE_TEST_DATA names its folder)")
    entry = find_entry("mbpp")
    assert entry is not None
    rows = [json.loads(line) for line in MBPP.read_text("utf-8").splitlines()]
    chosen = [
        entry.adapt(row, f"{MBPP}, line {number}").problem
        for number, row in enumerate(rows, 1)
        if number % every == 0 or row["task_id"] == WRONG
    ]
    path = tmp_path / "mbpp.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in chosen))
    return path


@pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_the_one_wrong_problem_of_mbpp_is_named(tmp_path: Path, every: int) -> None:
    path = of_mbpp(tmp_path, every)
    done = run(path, "--report", tmp_path / "report.json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["wrong"] == report["faults"]["reference"]["rows"] == 1
    [fault] = report["faults"]["reference"]["listed"]
    assert f"mbpp/{WRONG}" in fault["why"]
    assert report["references"]["judged"] == report["rows"] == len(path.read_text().splitlines())
