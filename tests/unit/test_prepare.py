"""What `data prepare` makes of rows, which it holds out, and where it finds them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from haloforge.cli.data import data_group
from haloforge.data.catalogue import entries
from haloforge.data.keys import components, firsts, held_out, names_of
from haloforge.data.lines import Writing, write
from haloforge.data.plan import plan
from haloforge.data.prepare import Prepared, prepare
from haloforge.data.problems import read_problems
from haloforge.data.sft import read_sft
from haloforge.data.sidecar import read_sidecar
from haloforge.data.sources import Source, find_source
from haloforge.data.streams import ROWS
from haloforge.errors import InfraError, InputError
from haloforge.report.progress import Report
from haloforge.store.storage import reaching
from tests.unit.set_rows import MBPP_SOLVED, SAMPLE, SELF_OSS

OWN = Source("rows.jsonl", "", strict=True, files=("rows.jsonl",))
TURNS = [{"role": "user", "content": "Print 1."}, {"role": "assistant", "content": "int x;"}]


def written(writing: Writing, *rows: Any) -> list[dict[str, Any]]:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    places = [f"rows.jsonl, line {number}" for number in range(1, len(rows) + 1)]
    return write(pa.table({"place": places, "row": texts}, schema=ROWS), writing).to_pylist()


def of_entry(name: str) -> Source:
    entry = entries()[name]
    return Source("rows.jsonl", name, entry, files=("rows.jsonl",), licence=entry.licence)


def test_a_row_of_sft_has_text_and_turns_and_says_where_it_is_from() -> None:
    [found] = written(Writing(of_entry("codeforces_cpp"), "sft"), SAMPLE)
    row = json.loads(found["row"])
    names = {"problem_id", "group", "language", "difficulty", "source", "license"}
    assert {*row} == {"text", "messages", *names}
    assert row["text"].startswith("<|im_start|>user\nPrint 1.")
    assert row["messages"][-1]["role"] == "assistant"
    assert row["source"] == "codeforces_cpp, rows.jsonl, line 1"
    assert row["license"] == "CC-BY-4.0"
    problem = json.loads(found["problem"])
    assert problem["problem_id"] == row["problem_id"]
    assert problem["source"] == row["source"]


def test_an_answer_without_tests_leaves_what_it_answers_as_the_problem() -> None:
    [found] = written(Writing(of_entry("self_oss_instruct"), "sft"), SELF_OSS)
    problem = json.loads(found["problem"])
    assert problem["prompt"] == SELF_OSS["instruction"]
    assert problem["language"] == "python"
    [none] = written(Writing(of_entry("self_oss_instruct"), "problems"), SELF_OSS)
    assert (none["row"], none["left_out"]) == (None, "the set is for SFT: it has no tests")


def test_rows_of_another_split_are_left_out_by_their_number() -> None:
    rows = [{**MBPP_SOLVED, "task_id": task} for task in (604, 11, 520)]
    found = written(Writing(of_entry("mbpp"), "problems"), *rows)
    assert found[0]["row"] is not None
    assert [row["left_out"] for row in found[1:]] == [
        "it is of the set's split 'test'",
        "it is of the set's split 'validation'",
    ]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("{", "rows.jsonl, line 2: not valid JSON"),
        ("[1]", "rows.jsonl, line 2: expected a JSON object"),
        ({"text": "hello"}, "rows.jsonl, line 2: field 'text': expected '<|im_start|>"),
        (
            {"messages": [{"role": "x", "content": ""}, TURNS[1]]},
            "line 2: field 'messages', turn 1",
        ),
        ({"messages": TURNS, "tests": 5}, "rows.jsonl, line 2: field 'tests'"),
        ({"prompt": "x", "promt": 1}, "rows.jsonl, line 2: field 'promt'"),
        ({"messages": [TURNS[0], {**TURNS[1], "content": "\ud800"}]}, "half a surrogate pair"),
    ],
)
def test_a_bad_row_of_one_s_own_stops(row: Any, fault: str) -> None:
    fine, found = written(Writing(OWN, "sft"), {"messages": TURNS}, row)
    assert fine["row"] is not None and fine["fault"] is None
    assert found["row"] is None
    assert found["stops"]
    assert fault in found["fault"]


def test_a_row_that_does_not_fit_a_known_set_is_counted() -> None:
    [found] = written(Writing(of_entry("codeforces_cpp"), "sft"), {"prompt": "x"})
    assert found["left_out"] == "field 'difficulty' is missing"
    assert not found["stops"]
    [torn] = written(Writing(of_entry("codeforces_cpp"), "sft"), "{")
    assert torn["stops"]


def test_chat_marks_inside_of_a_turn_are_no_chatml() -> None:
    row = {"messages": [{"role": "user", "content": "What is <|im_end|>?"}, TURNS[1]]}
    assert written(Writing(OWN, "sft"), row)[0]["left_out"] == "a turn holds ChatML's own marks"


def test_a_source_that_a_row_names_is_kept_beside_ours() -> None:
    [found] = written(Writing(OWN, "problems"), {"prompt": "x", "source": "mbpp, line 3"})
    assert json.loads(found["row"])["source"] == "rows.jsonl, line 1 (of mbpp, line 3)"


def test_the_text_may_follow_a_model_s_own_template(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    [found] = written(Writing(OWN, "sft", template=str(tmp_path)), {"messages": TURNS})
    row = json.loads(found["row"])
    assert row["text"] == "[user]Print 1.[assistant]int x;"
    assert row["messages"] == TURNS


def numbers(*values: int) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    return np.array(values, np.uint64)


def test_rows_are_joined_by_prompts_and_groups_however_indirectly() -> None:
    prompts, groups = numbers(5, 5, 6, 7, 8, 9), numbers(1, 2, 2, 3, 3, 4)
    labels = names_of(components(prompts, groups), prompts)
    assert labels[0] == labels[1] == labels[2]
    assert labels[3] == labels[4]
    assert len({*labels.tolist()}) == 3
    assert held_out(numbers(), numbers(), 0.5, seed=0).tolist() == []


def test_what_is_held_out_depends_on_problems_and_seed_alone() -> None:
    random = np.random.default_rng(0)
    prompts = random.integers(0, 2**63, 600).astype(np.uint64)
    groups = prompts[np.arange(600) // 3 * 3]
    mask = held_out(prompts, groups, 0.2, seed=1)
    assert 0.1 < mask.mean() < 0.3
    assert not {*groups[mask].tolist()} & {*groups[~mask].tolist()}
    order = random.permutation(600)
    assert (held_out(prompts[order], groups[order], 0.2, seed=1) == mask[order]).all()
    assert (held_out(prompts, groups, 0.2, seed=2) != mask).any()
    assert held_out(prompts, groups, 0.0, seed=1).sum() == 0


def test_what_is_held_out_of_a_part_is_held_out_of_the_whole() -> None:
    prompts = np.random.default_rng(0).integers(0, 2**63, 2000).astype(np.uint64)
    whole = {*prompts[held_out(prompts, prompts, 0.1, seed=0)].tolist()}
    for start in (0, 300):
        part = prompts[start : start + 1700]
        assert {*part[held_out(part, part, 0.1, seed=0)].tolist()} == whole & {*part.tolist()}
    variants = prompts.reshape(-1, 2)
    groups = np.repeat(variants[:, 0], 2)
    of_all = {*groups[held_out(prompts, groups, 0.1, seed=0)].tolist()}
    of_half = groups[1::2][held_out(prompts[1::2], groups[1::2], 0.1, seed=0)]
    assert {*of_half.tolist()} == of_all


def test_of_few_problems_one_is_held_out() -> None:
    for seed in range(20):
        prompts = numbers(1, 1, 2, 3)
        mask = held_out(prompts, prompts, 0.01, seed)
        assert len({*prompts[mask].tolist()}) == 1
    for seed in range(20):
        assert not held_out(numbers(1, 1), numbers(1, 1), 0.5, seed).any()
        assert held_out(numbers(1, 2), numbers(1, 2), 0.99, seed).sum() == 1


def test_the_first_of_each() -> None:
    assert firsts(numbers(3, 1, 3, 1, 2)).tolist() == [True, True, False, False, True]


def folder(path: Path, *names: str) -> str:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}\n")
    return str(path)


@pytest.mark.parametrize(
    ("dataset", "names", "files", "tests"),
    [
        ("apps", ["train.jsonl", "test.jsonl"], ["train.jsonl"], ["test.jsonl"]),
        ("mbpp", ["full/train-0.parquet", "full/test-0.parquet"], ["full/train-0.parquet"], []),
        (
            "mbpp",
            ["full/train-0.parquet", "sanitized/train-0.parquet"],
            ["full/train-0.parquet"],
            [],
        ),
        (
            "code_contests",
            ["train-0.parquet", "valid-0.parquet", "test-0.parquet"],
            ["train-0.parquet"],
            ["test-0.parquet"],
        ),
        ("mbpp", ["mbpp_train.jsonl", "mbpp_test.jsonl"], ["mbpp_train.jsonl"], []),
        ("codeforces_cpp", ["a.jsonl", "b.csv"], ["a.jsonl", "b.csv"], []),
    ],
)
def test_the_files_of_a_copy_are_told_by_split(
    tmp_path: Path, dataset: str, names: list[str], files: list[str], tests: list[str]
) -> None:
    copy = folder(tmp_path / "latest", *names)
    source = find_source(dataset, copy)
    assert [file.removeprefix(f"{copy}/") for file in source.files] == files
    assert [file.removeprefix(f"{copy}/") for file in source.test_files] == tests


def test_test_data_is_refused(tmp_path: Path) -> None:
    copy = folder(tmp_path, "test.jsonl")
    for dataset in ("humaneval", "mbpp_plus", "apps"):
        with pytest.raises(InputError, match="--allow-test-data takes it") as refused:
            find_source(dataset, copy)
        assert "\n" not in str(refused.value)
        allowed = find_source(dataset, copy, allow_test_data=True)
        assert allowed.files == (f"{copy}/test.jsonl",)


def test_fields_of_a_file_of_one_s_own_are_mapped(tmp_path: Path) -> None:
    path = folder(tmp_path, "rows.csv") + "/rows.csv"
    source = find_source(path, fields={"prompt": "q", "answer": "a"})
    assert source.entry is not None and source.entry.adapter == "instruction"
    [found] = written(Writing(source, "sft"), {"q": "Print 1.", "a": "int x;", "other": "5"})
    row = json.loads(found["row"])
    assert row["messages"] == TURNS
    assert "license" not in row
    [lacking] = written(Writing(source, "sft"), {"q": "Print 1."})
    assert lacking["stops"]
    assert "line 1: field 'a' is missing; there: q" in lacking["fault"]
    with pytest.raises(InputError, match="--map: field 'fields': adapter 'problem' has no field"):
        find_source(path, fields={"prompt": "q", "tsets": "t"})
    with pytest.raises(InputError, match="its entry maps its fields"):
        find_source("mbpp", fields={"prompt": "q"})


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; did you mean 'mbpp' of the catalogue"):
        find_source("mbppp")
    with pytest.raises(InputError, match="not in the catalogue, so --from"):
        find_source("rows.jsonl", "copy.jsonl")
    source = find_source("codeforces", folder(tmp_path, "train.jsonl"))
    with pytest.raises(InputError, match="--for sft: the set serves problems only"):
        plan(source, tmp_path / "out.jsonl", "sft")
    with pytest.raises(InputError, match="the held-out part would replace it"):
        plan(source, tmp_path / "test.jsonl")
    with pytest.raises(InputError, match=r"train\.jsonl: it is among what is read"):
        plan(source, tmp_path / "train.jsonl")
    with pytest.raises(InputError, match="--model: problems hold no chat text"):
        plan(source, tmp_path / "out.jsonl", template="folder")
    refused = CliRunner().invoke(data_group, ["prepare", "--map", "prompt"])
    assert refused.exit_code == 2
    assert "expected field=column" in refused.output


def test_a_name_with_a_copy_is_one_of_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder(tmp_path, "mbpp/full/train-0.parquet", "mbpp/full/test-0.parquet"))
    assert find_source("mbpp", "mbpp").files == ("mbpp/full/train-0.parquet",)
    assert len(find_source("mbpp").files) == 2  # the folder, as rows of one's own


def test_what_fails_is_told_apart_by_where_it_is() -> None:
    for location, error, kind in (
        ("rows.csv", OSError("torn"), InputError),
        ("s3://rows.csv", OSError("torn"), InfraError),
        ("s3://rows.csv", pa.ArrowInvalid("no Parquet"), InputError),
        ("s3://rows.csv", FileNotFoundError(), InputError),
    ):
        with pytest.raises(kind, match=f"^{location}: ") as told, reaching(location):
            raise error
        assert "\n" not in str(told.value)
    with pytest.raises(KeyError), reaching("s3://rows.csv"):
        raise KeyError("a fault of ours is not hidden")


def starter(output: Path, **choices: Any) -> Prepared:
    return prepare(plan(find_source("starter"), output, **choices), Report())


def test_the_starter_set_and_the_readme_s_jq_line(tmp_path: Path) -> None:
    done = starter(tmp_path / "train.jsonl")
    assert len(read_sft(str(done.output))) == done.rows >= 150
    tests = read_problems(str(done.test_output))
    assert all(problem.judge == "stdio" for problem in tests)
    assert len(tests) == done.test_rows == entries()["starter"].splits["test"].rows
    sidecar = read_sidecar(done.output)
    assert sidecar is not None
    assert (sidecar.rows, sidecar.read, sidecar.licence) == (done.rows, 252, "Apache-2.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "test.jsonl",
        "test.jsonl.meta.json",
        "train.jsonl",
        "train.jsonl.meta.json",
    ]
    if not shutil.which("jq"):
        pytest.skip("jq is not installed")
    line = '{prompt: .text | split("<|im_start|>user\\n")[1] | split("<|im_end|>")[0]}'
    text = subprocess.run(
        ["jq", "-c", line, str(done.output)], check=True, capture_output=True, text=True
    ).stdout
    (tmp_path / "prompts.jsonl").write_text(text)
    problems = read_problems(str(tmp_path / "prompts.jsonl"))
    assert len(problems) == done.rows
    assert problems[0].judge == "compile"


def test_the_starter_set_as_problems_in_python_with_none_held_out(tmp_path: Path) -> None:
    done = starter(tmp_path / "p.jsonl", purpose="problems", language="python", keep_all=True)
    problems = read_problems(str(done.output))
    assert (len(problems), done.test_output) == (252, None)
    assert {problem.language for problem in problems} == {"python"}
    assert not (tmp_path / "test.jsonl").exists()
