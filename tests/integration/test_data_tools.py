"""`halo-forge data split`, `data show` and `data prompts` as a user runs them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from haloforge.config import load_settings
from haloforge.data.problems import UNTESTED, fixed_subset, read_problems
from haloforge.data.sidecar import read_sidecar
from haloforge.model.policy import resolve_policy
from haloforge.raft.cycle import raft_sampling
from haloforge.rollout.pool import EnginePool
from haloforge.sampling import sample_and_judge
from haloforge.session import Session

PARTS = ("train", "validation", "test")
LEVELS = ("easy", "hard", None)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """One Ray for all commands of this file, which join it."""
    context = ray.init(
        "local", num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20
    )
    yield context.address_info["address"]
    ray.shutdown()


def run(address: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "haloforge", "data", *map(str, arguments)]
    done = subprocess.run(
        [*command, "--address", address], capture_output=True, text=True, timeout=600
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def sft_rows() -> list[dict[str, Any]]:
    """120 answers to 60 prompts of 30 groups; every third prompt has tests."""
    rows = []
    for number in range(120):
        asked, level = number % 60, LEVELS[number % 3]
        turns = [("user", f"Print {asked} é."), ("assistant", f"```python\nprint({number})\n```")]
        text = "\n".join(f"<|im_start|>{role}\n{said}<|im_end|>" for role, said in turns)
        tested = {"tests": [{"stdin": "", "stdout": f"{asked}\n"}], "language": "python"}
        rows.append(
            {"text": text, "group": f"g{asked // 2}", "stars": number}
            | ({"difficulty": level} if level else {})
            | (tested if asked % 3 == 0 else {})
        )
    return rows


def jsonl(path: Path, rows: list[dict[str, Any]], ascii_only: bool = True) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=ascii_only)}\n" for row in rows))
    return path


def test_split_show_and_prompts(cluster: str, tmp_path: Path) -> None:
    lines = jsonl(tmp_path / "sft.jsonl", sft_rows(), False).read_text().splitlines(keepends=True)
    done = run(cluster, "split", tmp_path / "sft.jsonl", "--output", tmp_path / "a", "--seed", "4")
    assert done.returncode == 0, done.stderr
    written = {name: (tmp_path / "a" / f"{name}.jsonl").read_text() for name in PARTS}
    found = [line for text in written.values() for line in text.splitlines(keepends=True)]
    assert sorted(found) == sorted(lines)
    groups = [{json.loads(line)["group"] for line in t.splitlines()} for t in written.values()]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 30
    assert "part        rows  problems" in done.stdout
    sidecar = read_sidecar(tmp_path / "a" / "test.jsonl")
    assert sidecar is not None and (sidecar.read, sidecar.seed) == (120, 4)
    assert sidecar.origin == str(tmp_path / "sft.jsonl")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        name for part in PARTS for name in (f"{part}.jsonl", f"{part}.jsonl.meta.json")
    )

    (tmp_path / "turned.jsonl").write_text("".join(reversed(lines)))
    turned = (tmp_path / "turned.jsonl", "--output", tmp_path / "b", "--seed", "4", "--json")
    done = run(cluster, "split", *turned)
    assert done.returncode == 0, done.stderr
    told = {part["name"]: part["rows"] for part in json.loads(done.stdout)["parts"]}
    assert told == {name: len(text.splitlines()) for name, text in written.items()}
    for name, text in written.items():
        again = (tmp_path / "b" / f"{name}.jsonl").read_text().splitlines(keepends=True)
        assert again[::-1] == text.splitlines(keepends=True)

    train = tmp_path / "a" / "train.jsonl"
    done = run(cluster, "prompts", train, "--output", tmp_path / "prompts.jsonl")
    assert done.returncode == 0, done.stderr
    problems = read_problems(str(tmp_path / "prompts.jsonl"))
    asked = read_problems(str(train))
    assert [p.turns() for p in problems] == [p.turns() for p in asked]
    assert [(p.tests, p.group, p.difficulty) for p in problems] == [
        (p.tests, p.group, p.difficulty) for p in asked
    ]
    tested = sum(problem.judge == "stdio" for problem in problems)
    assert 0 < tested < len(problems)
    assert f"{len(problems)} prompts of {sidecar_rows(train)} rows, {tested} with" in done.stdout
    assert f"{len(problems) - tested} have no tests" in done.stdout
    beside = read_sidecar(tmp_path / "prompts.jsonl")
    assert beside is not None and beside.parents[0] == read_sidecar(train)

    few = run(
        cluster, "prompts", train, "--output", tmp_path / "few.jsonl", "--limit", "5", "--json"
    )
    assert few.returncode == 0, few.stderr
    assert json.loads(few.stdout)["written"] == 5
    wanted = fixed_subset(problems, 5, lambda problem: problem.problem_id)
    assert read_problems(str(tmp_path / "few.jsonl")) == list(wanted)

    shown = run(cluster, "show", tmp_path / "prompts.jsonl", "--rows", "2")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("-- user") == 2
    for expected in ("Distributions: all rows", "tokens  least", "language", "judge", "easy "):
        assert expected in shown.stdout
    assert "\x1b" not in shown.stdout


def sidecar_rows(path: Path) -> int:
    found = read_sidecar(path)
    assert found is not None
    return found.rows


def test_tables_and_faults(cluster: str, tmp_path: Path) -> None:
    table = tmp_path / "rows.parquet"
    rows = [{"prompt": f"p{n}", "difficulty": None, "tags": ["x"]} for n in range(20)]
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "difficulty": "hard"}]), table)
    done = run(cluster, "prompts", table, "--output", tmp_path / "prompts.jsonl")
    assert done.returncode == 0, done.stderr
    assert UNTESTED in done.stdout
    assert len(read_problems(str(tmp_path / "prompts.jsonl"))) == 20

    twice = [{"prompt": "a", "problem_id": "1"}, {"prompt": "b", "problem_id": "1"}]
    jsonl(tmp_path / "twice.jsonl", twice)
    for arguments, expected in (
        (("prompts", "twice.jsonl"), "line 1: field 'problem_id': '1' is that of another prompt"),
        (("split", "twice.jsonl"), "would be empty: rows that stay together leave 1 to share"),
        (("split", "none.jsonl"), "none.jsonl: no such file"),
    ):
        name, file = arguments
        done = run(cluster, name, tmp_path / file, "--output", tmp_path / "out")
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr.strip().splitlines()[-1]
        assert not (tmp_path / "out").exists()


def test_that_nothing_is_tested_is_said_before_engines_start(
    cluster: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReachedError(Exception):
        pass

    def no_engines(*_: Any) -> EnginePool:
        raise ReachedError

    settings = load_settings(None, {"ray.address": cluster}, ())
    session, said = Session(settings), list[str]()
    monkeypatch.setattr(session, "engines", no_engines)
    monkeypatch.setattr(session.report, "say", said.append)
    path = jsonl(tmp_path / "p.jsonl", [{"prompt": "x"}])
    tested = {"prompt": "x", "language": "python", "tests": [{"stdin": "", "stdout": "1"}]}
    for problems in (read_problems(str(path)), read_problems(str(jsonl(path, [tested])))):
        with pytest.raises(ReachedError):
            sample_and_judge(
                *(session, resolve_policy(str(tiny_model)), problems, 1, raft_sampling(settings)),
                *("run", 1, tmp_path / "samples", "raft cycle 1"),
            )
    assert [line for line in said if "tests" in line] == [f"raft cycle 1: {UNTESTED}"]
