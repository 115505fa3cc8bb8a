"""What a user does wrong ends as one clear line and an exit code, never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haloforge.config import load_settings
from haloforge.errors import ResourceError
from haloforge.preflight import check_raft

GOOD = {"prompt": "Print 1.", "tests": [{"stdin": "", "stdout": "1\n"}]}


def halo_forge(
    *arguments: str, cwd: Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "haloforge", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ("sft train --data none.jsonl", 2, "none.jsonl: no such file"),
        ("sft train --data empty.jsonl", 2, "empty.jsonl: the file is empty"),
        ("sft train --data good.jsonl", 2, "good.jsonl, line 1: field 'text'"),
        ("raft train --prompts torn.jsonl", 2, "torn.jsonl, line 2: not valid JSON"),
        ("raft train --verifier gc", 2, "unknown verifier 'gc'; did you mean 'gcc'"),
        ("raft train --keep-top-percent 50", 2, "raft.keep_top_percent"),
        ("raft train --checkpoint nowhere/at/all", 2, "no such folder"),
        ("benchmark run --samples 2 --k 1,5", 2, "k=5 cannot be estimated from 2 samples"),
        ("benchmark eval", 2, "Missing option '--suite'"),
        ("benchmark eval --suite mbbp", 2, "unknown suite 'mbbp'; did you mean 'mbpp'?"),
        ("benchmark eval --suite humaneval,mbpp --data .", 2, "suite 'mbpp' is not at hand: fetch"),
        ("benchmark run --prompts suite/humanevl", 2, "did you mean 'humaneval'?"),
        ("benchmark eval --suite humaneval --from-date soon", 2, "benchmark.from_date"),
        ("benchmark run --k one", 2, "expected whole numbers"),
        ("benchmark run --model nowhere/at/all", 2, "no such folder"),
        ("pipeline --config none.yaml", 2, "none.yaml: cannot be read"),
        ("pipeline --set raft.cycels=2", 2, "did you mean 'raft.cycles'"),
        ("pipeline --set raft.prompts=starter/test", 2, "must not be measured on what it trained"),
        ("data prepare --dataset none.jsonl --output out.jsonl", 2, "none.jsonl: no such file"),
        ("data prepare", 2, "give --dataset and --output"),
        ("data generate --topic rust_async", 2, "give --topic, --backend and --output"),
        (
            "data generate --topic rust --backend ollama --output out.jsonl",
            2,
            "no topic 'rust'; known: cpp_algorithms",
        ),
        ("model merge --model nowhere/at/all --output m", 2, "no such folder"),
        ("raft train --set raft.exclude=none.txt", 2, "none.txt: cannot be read"),
        ("raft train --verifier own.py:Own", 2, "verifier own.py:Own: own.py: No such file"),
        ("benchmark run --verifier cmd:./check.sh", 2, "{file} must stand where"),
        ("verify", 2, "give --input and --output, or --references"),
        ("verify --input good.jsonl", 2, "give --input and --output, or --references"),
        ("verify --input none.jsonl --output v.parquet", 2, "none.jsonl: no such file"),
        ("verify --input torn.jsonl --output v.parquet", 2, "torn.jsonl, line 1: give field"),
        ("verify --input twice.jsonl --output v.parquet", 2, "line 2: field 'sample_id': 's'"),
        ("verify --input cobol.jsonl --output v.parquet", 2, "no toolchain for language 'cobol'"),
        ("verify --input twice.jsonl --output v.jsonl", 2, "name a .parquet file"),
        (
            "verify --input named.jsonl --problems good.jsonl --output v.parquet",
            2,
            "named.jsonl, line 1: field 'problem_id': 'p' is not among the problems",
        ),
        ("verify --input named.jsonl --output good.parquet", 2, "holds no verdicts of"),
        ("verify --references good.jsonl", 2, "good.jsonl: no problem has a 'reference'"),
        ("raft trian", 2, "No such command 'trian'"),
    ],
)
def test_one_line_and_an_exit_code(
    tmp_path: Path, arguments: str, code: int, expected: str
) -> None:
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD) + "\n")
    (tmp_path / "torn.jsonl").write_text(json.dumps(GOOD) + '\n{"prompt": \n')
    (tmp_path / "empty.jsonl").write_text("")
    samples = {
        "twice": 2 * [{"sample_id": "s", "code": "x"}],
        "cobol": [{"code": "x", "language": "cobol"}],
        "named": [{"problem_id": "p", "code": "x"}],
    }
    for name, rows in samples.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "good.parquet").write_text("")
    before = sorted(tmp_path.iterdir())
    done = halo_forge(*arguments.split(), cwd=tmp_path)
    assert sorted(tmp_path.iterdir()) == before  # nothing is written
    assert expected in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Ray dashboard" not in done.stderr  # refused before Ray was started


def test_a_missing_compiler_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.jsonl").write_text(json.dumps({**GOOD, "language": "cpp"}) + "\n")
    monkeypatch.setattr("haloforge.verify.toolchains.COMPILER_PATH", str(tmp_path))
    settings = load_settings(None, {"raft.prompts": str(tmp_path / "good.jsonl")})
    with pytest.raises(ResourceError, match=r"cpp needs g\+\+: apt-get install g\+\+"):
        check_raft(settings)


@pytest.mark.parametrize("arguments", ["", "sft train --help", "raft train --help", "--version"])
def test_help_is_quick_to_ask_for(tmp_path: Path, arguments: str) -> None:
    done = halo_forge(*arguments.split(), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout
