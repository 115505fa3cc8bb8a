"""Entries of the catalogue, and a user's own."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from haloforge.cli.data import data_group
from haloforge.data.adapters import ADAPTERS
from haloforge.data.catalogue import entries, find_entry, read_entry
from haloforge.data.problems import STARTER_SPLITS, starter_problems
from haloforge.errors import InputError
from tests.unit.set_rows import OF_EACH

OWN = """\
name: mine
origin: {path: rows.jsonl}
splits:
  train: {used_for: train}
licence: MIT
languages: [python]
uses: [problems, sft]
tests: function
adapter: problem
options: {language: python}
fields: {prompt: question, test_code: checks, reference: solution}
"""
ROW = {
    "question": "Double a number.",
    "checks": "assert twice(2) == 4",
    "solution": "def twice(n):\n    return 2 * n",
    "stars": 5,
}


def test_every_entry_loads_and_has_an_adapter_that_is_tested() -> None:
    known = entries()
    assert next(iter(known)) == "starter"
    assert {"mbpp", "mbpp_plus", "humaneval", "humaneval_plus", "livecodebench", "apps"} < {*known}
    assert {"code_contests", "codeforces_cpp", "codeforces_python", "codeforces_rust"} < {*known}
    assert {entry.adapter for entry in known.values()} <= {*ADAPTERS}
    assert {name for name, _ in OF_EACH} == {*known}
    for entry in known.values():
        counted = any(split.rows is not None for split in entry.splits.values())
        assert not counted or entry.rows_source, entry.name
        assert (entry.tests is None) == (entry.uses == ["sft"]), entry.name


def test_test_sets_are_known_as_such() -> None:
    known = entries()
    for name in ("humaneval", "humaneval_plus", "mbpp_plus", "livecodebench"):
        assert known[name].test_set
    for name in ("mbpp", "apps", "code_contests", "codeforces", "codeforces_rust"):
        assert not known[name].test_set
        assert known[name].splits["test"].used_for == "test"
        assert known[name].splits["train"].used_for == "train"


def test_the_starter_entry_counts_what_is_bundled() -> None:
    counted = {name: split.rows for name, split in entries()["starter"].splits.items()}
    assert counted == {split: len(starter_problems(split)) for split in STARTER_SPLITS}


def test_the_list_shows_every_entry() -> None:
    shown = CliRunner().invoke(data_group, ["prepare", "--list"])
    assert shown.exit_code == 0, shown.output
    blocks = shown.output.strip().split("\n\n")
    assert len(blocks) == len(entries())
    for block in blocks:
        keys = [line.partition(": ")[0] for line in block.splitlines()]
        assert keys[:7] == ["name", "origin", "licence", "languages", "rows", "uses", "tests"]
    assert "374 train, 90 validation, 500 test, 10 prompt (dataset card)" in shown.output


@pytest.mark.parametrize(
    ("line", "other", "expected"),
    [
        ("licence: MIT", "license: MIT", "field 'licence': Field required"),
        ("licence: MIT", "licence: MIT\nstars: 5", "field 'stars': Extra inputs"),
        (
            "adapter: problem",
            "adapter: probelm",
            "field 'adapter': unknown adapter 'probelm'; known",
        ),
        ("{language: python}", "{speed: 5}", "field 'options', field 'speed': Extra inputs"),
        ("{language: python}", "{language: cobol}", "field 'language': unknown language 'cobol'"),
        ("{prompt: question", "{promt: question", "field 'fields': adapter 'problem' has no field"),
        ("{prompt: question, ", "{", "field 'fields': it maps no column to 'prompt'"),
        ("{path: rows.jsonl}", "{path: a, hub: b/c}", "field 'origin': give 'hub', 'path' or"),
        ("{path: rows.jsonl}", "{hub: b/c, revision: main}", "field 'origin.revision': String"),
        ("{used_for: train}", "{used_for: fun}", "field 'splits.train.used_for': Input should be"),
        ("name: mine", "name: {", ": not valid YAML"),
    ],
)
def test_what_is_wrong_with_an_entry_is_named(line: str, other: str, expected: str) -> None:
    assert line in OWN
    with pytest.raises(InputError) as error:
        read_entry(OWN.replace(line, other), "mine.yaml")
    assert str(error.value).startswith("mine.yaml")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_user_s_own_entry_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    entry = find_entry(str(path))
    assert entry is not None
    assert entry.origin.path == str(tmp_path / "rows.jsonl")
    found = entry.adapt(ROW, "rows.jsonl, line 1")
    assert isinstance(found.problem, dict) and isinstance(found.conversation, list)
    assert found.problem["judge"] == "function"
    assert found.problem["reference"] == {"python": ROW["solution"]}
    assert "assert twice(2) == 4" in found.problem["prompt"]  # it hid the name
    assert found.conversation[-1]["content"] == f"```python\n{ROW['solution']}\n```"
    with pytest.raises(InputError, match="line 2: field 'checks' is missing; there: question"):
        entry.adapt({"question": "?", "solution": "pass"}, "rows.jsonl, line 2")


def test_what_names_no_entry(tmp_path: Path) -> None:
    assert find_entry("rows.jsonl") is None
    assert find_entry("mbqq") is None
    assert find_entry("mbpp") is entries()["mbpp"]
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        find_entry(str(tmp_path / "none.yaml"))
    stored = OWN.replace("rows.jsonl", "s3://bucket/rows.parquet")
    (tmp_path / "stored.yml").write_text(stored)
    entry = find_entry(str(tmp_path / "stored.yml"))
    assert entry is not None and str(entry.origin) == "s3://bucket/rows.parquet"
