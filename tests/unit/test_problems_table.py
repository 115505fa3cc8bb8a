"""The prompts of a run are beside its samples, once, and are no part of what it is."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import yaml

from haloforge.config import load_settings
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.raft.cycle import _open
from haloforge.report.progress import Report
from haloforge.schema import Problem
from haloforge.store.problems_table import PROBLEMS, PROBLEMS_SCHEMA, write_problems
from haloforge.store.run import open_run
from haloforge.view.asked import Problems
from haloforge.view.sources import Source
from tests.raft_runs import problem
from tests.stored_run import stored

POLICY = Policy("p", Base("p", "p", Path("p"), "p"), None, "p")
TURNS = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Add."},
]


def test_a_row_says_what_is_asked(tmp_path: Path) -> None:
    given = [
        problem("a", difficulty="easy", source="mine"),
        Problem.model_validate({"problem_id": "b", "messages": TURNS}),
        Problem.model_validate({"problem_id": "c", "prefix": "def f():\n"}),
        Problem.model_validate({"problem_id": "d", "prompt": "Add.", "system": "Be brief."}),
    ]
    write_problems(tmp_path, given)
    table = pq.read_table(tmp_path / PROBLEMS)
    assert table.schema.names == PROBLEMS_SCHEMA.names
    assert [row["prompt"] for row in table.to_pylist()] == [
        "Do a.",
        "user:\nHello.\n\nassistant:\nYes?\n\nuser:\nAdd.",
        "def f():\n",
        "system:\nBe brief.\n\nuser:\nAdd.",
    ]
    first = table.to_pylist()[0]
    told = {"language": "cpp", "difficulty": "easy", "judge": "stdio", "source": "mine"}
    assert {name: first[name] for name in told} == told
    assert [row["form"] for row in table.to_pylist()] == ["turns", "turns", "prefix", "turns"]


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    write_problems(tmp_path, [problem("a")])
    before = (tmp_path / PROBLEMS).stat()
    write_problems(tmp_path, [problem("a")])
    assert (tmp_path / PROBLEMS).stat() == before
    assert [path.name for path in tmp_path.iterdir()] == [PROBLEMS]


def test_a_raft_run_has_them_and_is_the_same_run_with_them(tmp_path: Path) -> None:
    source = tmp_path / "problems.jsonl"
    source.write_text(problem("a").model_dump_json(exclude_defaults=True) + "\n")
    settings = load_settings(None, {"raft.prompts": str(source)})
    session: Any = SimpleNamespace(settings=settings, report=Report())
    run = tmp_path / "run"
    _open(session, POLICY, run, fresh=False)
    identity = (run / "run.json").read_text()
    found = Problems(run).find(Source("cycle_1", run / "cycle_1", "samples", 1), "a")
    assert (found.prompt, found.language) == ("Do a.", "cpp")
    _open(session, POLICY, run, fresh=False)
    assert (run / "run.json").read_text() == identity
    (run / "run.json").write_text("{ torn")
    _open(session, POLICY, run, fresh=False)  # they are nothing that was made
    assert (run / "run.json").read_text() == identity


def test_they_are_in_object_storage_too(store: pafs.FileSystem, folder: Path) -> None:
    open_run(folder, {"what": "raft"})
    write_problems(folder, [problem("a")])
    assert stored(store)[PROBLEMS] == (folder / PROBLEMS).read_bytes()


def test_without_them_the_prompts_are_where_the_settings_say(tmp_path: Path) -> None:
    source = tmp_path / "problems.jsonl"
    source.write_text(problem("a").model_dump_json(exclude_defaults=True) + "\n")
    run = tmp_path / "run"
    cycle = Source("cycle_1", run / "cycle_1", "samples", 1)
    cycle.folder.mkdir(parents=True)
    (run / "config.yaml").write_text(f"raft: {{prompts: {source}}}\nverify: {{verifier: gcc}}\n")
    assert Problems(run).find(cycle, "a").prompt == "Do a."
    assert Problems(run).verifier(cycle) == "gcc"
    assert Problems(run).find(cycle, "b").why_not == (
        f"problems.parquet is not there, nor is it among {source}"
    )
    (run / "config.yaml").write_text("raft: {prompts: starter}\n")
    assert "sum" in (Problems(run).find(cycle, "starter/sum-two").prompt or "")
    (run / "config.yaml").unlink()
    found = Problems(run).find(cycle, "a")
    assert found.prompt is None and "nor settings that name the problems" in str(found.why_not)
    (run / PROBLEMS).write_bytes(b"torn")
    assert "problems.parquet cannot be read" in str(Problems(run).find(cycle, "a").why_not)


@pytest.mark.parametrize("place", [".", "cycle_1"])
def test_those_nearest_to_the_samples_count(place: str, tmp_path: Path) -> None:
    inner = tmp_path / "cycle_1" / "eval"
    inner.mkdir(parents=True)
    write_problems(tmp_path / place, [problem("a", difficulty="outer")])
    source = Source("cycle_1/eval", inner, "evaluation", 1)
    assert Problems(tmp_path).find(source, "a").difficulty == "outer"
    write_problems(inner, [problem("a", difficulty="inner")])
    assert Problems(tmp_path).find(source, "a").difficulty == "inner"


def test_what_is_no_table_of_problems_and_no_settings(tmp_path: Path) -> None:
    source = Source("cycle_1", tmp_path / "cycle_1", "samples", 1)
    pq.write_table(pa.table({"problem_id": ["a"]}), tmp_path / PROBLEMS)
    for settings in ("raft: hello\n", "raft: [1]\n", "- 1\n", "{", "raft: {prompts: 7}\n"):
        (tmp_path / "config.yaml").write_text(settings)
        found = Problems(tmp_path).find(source, "a")
        assert found.prompt is None and "not one column 'prompt'" in str(found.why_not)
        assert Problems(tmp_path).verifier(source) == "auto"


def test_settings_are_parsed_once_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    load = yaml.safe_load

    def noted(text: str) -> Any:
        parsed.append(text)
        return load(text)

    monkeypatch.setattr(yaml, "safe_load", noted)
    source = Source("cycle_1", tmp_path / "cycle_1", "samples", 1)
    path = tmp_path / "config.yaml"
    path.write_text("verify: {verifier: gcc}\n")
    problems = Problems(tmp_path)
    assert [problems.verifier(source) for _ in range(3)] == ["gcc"] * 3 and len(parsed) == 1
    path.write_text("verify: {verifier: rust}\n")
    os.utime(path, ns=(1, 1))
    assert problems.verifier(source) == "rust" and len(parsed) == 2
