"""`--json`: one document on standard output, with what the text tells."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import pytest
from click.testing import CliRunner

from haloforge.cli.job import job_of
from haloforge.cli.main import cli
from haloforge.cli.output import plain
from haloforge.cli.stages import STAGES
from haloforge.data.show import Shown
from haloforge.data.split import Part
from haloforge.model.adapter import AdapterInfo
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.prove import Proof
from haloforge.report.data_trees import generated_tree, parts_tree, shown_tree
from haloforge.report.training import preview_text, preview_tree
from haloforge.report.trees import (
    measured_tree,
    pipeline_tree,
    proofs_tree,
    raft_tree,
    scores_tree,
    study_tree,
    trained_tree,
)
from haloforge.rescore import Scores
from haloforge.schema import Outcome, Problem, Verdict
from haloforge.sft import Preview
from haloforge.study import pool
from haloforge.train.estimate import Estimate
from haloforge.train.settings import TrainSettings
from tests.results import judged, passing
from tests.unit.test_study import record

# What they tell is for people, or goes on until it is stopped.
_WITHOUT = {"view", "serve", "submit"}


def document(*arguments: str, code: int = 0) -> Any:
    """What is on standard output of a command, which is one document and nothing else."""
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == code, (done.output, done.exception)
    assert done.stdout.isascii()
    return json.loads(done.stdout)


def commands(group: click.Group, name: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for command in group.commands.values():
        full = f"{name} {command.name}".strip()
        below = commands(command, full) if isinstance(command, click.Group) else {full: command}
        found |= below
    return found


def test_each_command_that_reports_has_it_and_its_keys_are_documented() -> None:
    told = (Path(__file__).parents[2] / "haloforge" / "cli" / "README.md").read_text()
    for name, command in commands(cli).items():
        has = any(option.name == "as_json" for option in command.params)
        assert has == (name not in _WITHOUT), name
        assert not has or f"| `{name}` |" in told, name


def test_a_job_takes_it_along() -> None:
    job, _ = job_of("benchmark", ("--output", "/shared/b", "--json"))
    assert job.words[-1] == "--json"
    assert "submit" not in STAGES


def test_plain_values() -> None:
    tree = {"a": Path("b"), "c": (1, float("nan"), [float("inf")]), 2: Outcome.PASSED}
    assert json.loads(json.dumps(plain(tree))) == {"a": "b", "c": [1, None, [None]], "2": "passed"}
    with pytest.raises(TypeError):
        json.dumps(plain({"a": object()}))


def test_data_prepare(tmp_path: Path) -> None:
    output = tmp_path / "train.jsonl"
    words = ("data", "prepare", "--dataset", "starter", "--output", str(output))
    told = document(*words, "--json")
    assert told["rows"] == len(output.read_text().splitlines()) > 100
    assert told["output"] == str(output) and told["test_rows"] > 10
    text = CliRunner().invoke(cli, words).stdout
    assert f"{output}: {told['rows']} conversations of {told['read']} rows" in text


def test_lists() -> None:
    sets = {
        row["name"]: row for row in document("data", "prepare", "--list", "--json")["data_sets"]
    }
    assert "mbpp" in sets and sets["mbpp"]["languages"] == ["python"]
    told = document("data", "generate", "--list", "--json")
    assert "rust_async" in {row["topic"] for row in told["topics"]}
    assert "deepseek" in {row["backend"] for row in told["backends"]}


def test_what_generating_would_cost(tmp_path: Path) -> None:
    words = ("data", "generate", "--topic", "rust_async", "--backend", "deepseek", "--count", "7")
    told = document(*words, "--output", str(tmp_path / "o.jsonl"), "--dry-run", "--json")["cost"]
    assert told["requests"] == 7 and told["usd"] > 0 and told["model"]


def test_what_was_generated(tmp_path: Path) -> None:
    from haloforge.config import load_settings
    from haloforge.data.generate.asking import Asked
    from haloforge.data.generate.generate import plan
    from haloforge.data.generate.keeping import Kept

    settings = load_settings(None, {})
    planned = plan("rust_async", "deepseek", tmp_path / "o.jsonl", settings, count=3)
    told = plain(generated_tree(planned, Asked(3), Kept(3, 1, Counter({"reference": 2}))))
    assert told["left_out"] == {"reference": 2} and told["read"] == 3 and told["rows"] == 1
    assert told["rejected"] == str(tmp_path / "o.rejected.jsonl")
    assert told["asked"] == {"answered": 3, "given_up": 0, "why": "", "capped": False}
    assert json.dumps(told)


def test_parts_of_a_split() -> None:
    told = parts_tree([Part("train", Path("a"), 3, 2, Counter({"easy": 2, "hard": 1}))])
    [part] = plain(told)["parts"]
    assert part == {
        "name": "train",
        "path": "a",
        "rows": 3,
        "problems": 2,
        "difficulties": {"easy": 2, "hard": 1},
    }


def test_rows_that_are_shown() -> None:
    numbers = {"tokens": [1, 2, 3, 200], "tests": []}
    names = {"language": Counter({"cpp": 3})}
    rows = [("f.jsonl, line 1", {"prompt": "\x1b[2J", "value": float("nan")})]
    found = Shown(9, 4, rows, numbers, names, Counter({"language": 1, "tests": 4}))
    told = json.loads(json.dumps(plain(shown_tree(found)), allow_nan=False))
    assert told["total"] == 9 and told["rows"][0]["row"] == {"prompt": "\x1b[2J", "value": None}
    tokens = told["numbers"]["tokens"]
    assert (tokens["min"], tokens["median"], tokens["max"]) == (1, 2.5, 200)
    assert tokens["histogram"] == [
        {"from": 1, "to": 1, "rows": 1},
        {"from": 2, "to": 3, "rows": 2},
        {"from": 128, "to": 255, "rows": 1},
    ]
    assert told["numbers"]["tests"]["rows"] == 0 and told["numbers"]["tests"]["not_given"] == 4
    assert told["names"]["language"] == {"counts": {"cpp": 3}, "not_given": 1}


def test_measured_models_and_their_comparison() -> None:
    one = {"a": passing([1, 2], 2)}
    folders = {"a": Path("runs/a"), "b": Path("runs/b")}
    told = measured_tree(one, folders)
    assert told["comparison"] is None and told["models"]["a"]["folder"] == "runs/a"
    assert told["models"]["a"]["measures"]["pass@1"]["mean"] == 0.75
    assert "per_problem" not in told["models"]["a"]
    two = measured_tree({**one, "b": passing([0, 2], 2)}, folders)
    assert two["comparison"]["reference"] == "a"
    assert two["comparison"]["differences"]["b"]["losses"] == {"p0": (0.5, 0.0)}
    assert json.loads(json.dumps(plain(two)))


def test_benchmark_compare(tmp_path: Path) -> None:
    paths = []
    for name, right in (("a", True), ("b", False)):
        paths.append(str(tmp_path / name))
        (tmp_path / name).mkdir()
        result = passing([1 + right, 2], 2)
        (tmp_path / name / "results.json").write_text(result.model_dump_json())
    told = document("benchmark", "compare", *paths, "--json")
    assert told == document("benchmark", "compare", *paths, "--format", "json")
    assert told["differences"]["b"]["ties"] == 1
    file = tmp_path / "c.json"
    words = ("benchmark", "compare", *paths, "--json", "--output", str(file))
    assert document(*words) == {"output": str(file)}
    assert json.loads(file.read_text()) == told


def test_a_pipeline_tells_its_summary(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    summary.write_text('{"raft": {"pass@1": {"mean": 0.5}}}')
    told = pipeline_tree("s3://b/run", summary)
    assert told == {"output": "s3://b/run", "summary": {"raft": {"pass@1": {"mean": 0.5}}}}


def policy(folder: Path) -> Policy:
    return Policy(str(folder), Base("base", "base", folder, "digest"), folder, "digest")


def test_trained_models(tmp_path: Path) -> None:
    folder = tmp_path / "cycle_2_final"
    folder.mkdir()
    info = AdapterInfo(
        base="b",
        base_public_id="b",
        base_digest="d",
        stage="raft",
        parent="p",
        chat_template="",
        training={"steps": 3, "loss_last": 0.25},
    )
    (folder / "haloforge.json").write_text(info.model_dump_json())
    (tmp_path / "raft_statistics.json").write_text('[{"cycle": 1}, {"cycle": 2}]')
    trained = policy(folder)
    assert trained_tree(trained) == {
        "model": str(folder),
        "training": {"steps": 3, "loss_last": 0.25},
    }
    assert raft_tree(trained) == {
        "model": str(folder),
        "output": str(tmp_path),
        "cycles": [{"cycle": 1}, {"cycle": 2}],
    }


def test_scores() -> None:
    found = Scores(
        Counter({"passed": 3, "wrong_answer": 1, "infra_error": 1}),
        Counter({"passed": 3.0, "wrong_answer": 0.5}),
        Counter({"gcc 12": 4, "": 0}),
        Counter({"bubblewrap": 5}),
        lost=1,
    )
    told = scores_tree(found, Path("v.parquet"))
    assert told["outcomes"]["passed"] == {"samples": 3, "share": 0.75, "mean_reward": 1.0}
    assert (told["samples"], told["scored"], told["lost"], told["complete"]) == (5, 4, 1, False)
    assert told["mean_reward"] == 0.875 and told["toolchains"] == {"gcc 12": 4}
    none = scores_tree(Scores(Counter({"infra_error": 1}), lost=1), Path("v.parquet"))
    assert none["mean_reward"] is None and none["outcomes"] == {}


def test_proofs() -> None:
    problem = Problem(problem_id="p", prompt="x", language="cpp", judge="compile")
    row = judged(0, 0, "wrong_answer").verdict
    failed = Proof(problem, "cpp", Verdict(**{**row, "diagnostics": "said 1"}), holds=False)
    lost = replace(failed, verdict=Verdict(**{**row, "outcome": "infra_error"}))
    told = proofs_tree(3, [replace(failed, holds=True), failed, lost], None)
    assert told["problems"] == 3 and told["solutions"] == 3 and told["output"] is None
    assert [each["outcome"] for each in told["failed"]] == ["wrong_answer"]
    assert [each["outcome"] for each in told["lost"]] == ["infra_error"]
    assert told["failed"][0]["diagnostics"] == "said 1"


def test_a_study() -> None:
    found = pool([record(0, [0.2] * 20, [0.6] * 20), record(1, [0.2] * 20, [0.6] * 20)], 100)
    told = json.loads(json.dumps(plain(study_tree(found, Path("results")))))
    assert told["seeds"] == [0, 1] and told["results"] == "results"
    assert told["differences"]["raft_minus_base"]["pass@1"]["mean"] == pytest.approx(0.4)


class Words:
    """A tokenizer whose tokens are words: number n is `wn`."""

    def decode(self, ids: Any) -> str:
        return " ".join(f"w{number}" for number in ids)


class TwoRows:
    """Examples with three and two tokens, of which the last two and the last are trained on."""

    length = np.array([3, 2])

    def lengths(self) -> list[int]:
        return [3, 2]

    def row(self, index: int) -> tuple[Any, Any]:
        return (
            (np.array([1, 2, 3]), np.array([False, True, True])),
            (np.array([4, 5]), np.array([False, True])),
        )[index]

    def trained_tokens(self, rows: Any) -> int:
        return sum((2, 1)[row] for row in rows)


def test_a_batch_and_an_estimate() -> None:
    estimate = Estimate(2, 0, 1, 5, 3, 1.0, 100, 10, 1, {"weights": 1.5, "logits": 0.5})
    settings = TrainSettings(batch_size=2, epochs=1).on(gpu=False)
    seen = Preview(cast(Any, TwoRows()), settings, 1, cast(Any, Words()), estimate)
    told = json.loads(json.dumps(plain(preview_tree(seen))))
    assert told["estimate"]["memory_mb"] == 2.0 and told["estimate"]["steps"] == 1
    rows = {row["row"]: row["pieces"] for s in told["batch"]["sequences"] for row in s["rows"]}
    assert rows == {
        0: [{"text": "w1", "trained": False}, {"text": "w2 w3", "trained": True}],
        1: [{"text": "w4", "trained": False}, {"text": "w5", "trained": True}],
    }
    assert told["batch"]["trained_tokens"] == 3
    text = preview_text(seen)
    assert "w1⟦w2 w3⟧" in text and "w4⟦w5⟧" in text and "--- 3 tokens are trained on" in text
    assert "memory         about 2 MiB a worker" in text
    nothing = preview_tree(replace(seen, tokenizer=None, estimate=None))
    assert nothing == {"estimate": None, "batch": None}


def test_an_error_is_told_as_ever(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["data", "prepare", "--json", "--output", str(tmp_path / "o")])
    assert done.exit_code == 2 and not done.stdout and "give --dataset" in done.stderr
