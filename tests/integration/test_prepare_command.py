"""`data prepare` on Ray: files of one's own, copies of known sets, and the hub's stand-in.

Object storage is not tried here: nothing that stands in for it is among the project's packages.
"""

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import ray

from haloforge.config import load_settings
from haloforge.data.catalogue import entries
from haloforge.data.plan import plan
from haloforge.data.prepare import Prepared, prepare
from haloforge.data.problems import read_problems
from haloforge.data.sft import common_system, read_sft, to_chatml
from haloforge.data.sidecar import read_sidecar
from haloforge.data.sources import find_source
from haloforge.data.streams import drain
from haloforge.errors import InfraError, InputError
from haloforge.session import Session
from tests.dataset_hub import NEWEST, dataset_hub
from tests.unit.set_rows import APPS, CODEFORCES, SAMPLE

BESIDE = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(os.environ.get("HALOFORGE_TEST_DATA", BESIDE))


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session(load_settings(None, {}, ())) as session:
        yield session


def prepared(
    session: Session,
    dataset: str | Path,
    output: Path,
    copy: Path | None = None,
    fields: dict[str, str] | None = None,
    **choices: Any,
) -> Prepared:
    source = find_source(str(dataset), str(copy) if copy else None, fields)
    return prepare(plan(source, output, **choices), session.report)


def jsonl(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def shared(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not here (HALOFORGE_TEST_DATA names its folder)")
    return path


def test_groups_are_held_out_whole_by_the_seed(session: Session, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "problem_id": str(i), "group": str(i // 3)} for i in range(60)]
    source = jsonl(tmp_path / "all.jsonl", *rows)
    done = prepared(session, source, tmp_path / "a" / "train.jsonl", seed=1, test_fraction=0.2)
    train, test = read_problems(str(done.output)), read_problems(str(done.test_output))
    assert len(train) + len(test) == 60 and 0 < len(test) < 30
    assert not {p.group for p in train} & {p.group for p in test}
    assert done.left_out == {"held out, for test.jsonl": len(test)}
    again = prepared(session, source, tmp_path / "b" / "train.jsonl", seed=1, test_fraction=0.2)
    for name in ("train.jsonl", "train.jsonl.meta.json", "test.jsonl", "test.jsonl.meta.json"):
        assert (again.output.parent / name).read_bytes() == (done.output.parent / name).read_bytes()
    other = prepared(session, source, tmp_path / "c" / "train.jsonl", seed=2, test_fraction=0.2)
    assert other.output.read_bytes() != done.output.read_bytes()
    assert len([*done.output.parent.iterdir()]) == 4


def test_answers_to_one_prompt_stay_together(session: Session, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "You are an expert programmer."}]
    texts = [
        to_chatml(
            [
                *turns,
                {"role": "user", "content": f"Print {i % 10}."},
                {"role": "assistant", "content": f"```cpp\nint x{i};\n```"},
            ]
        )
        for i in range(15)
    ]
    source = jsonl(tmp_path / "all.jsonl", *({"text": text} for text in texts))
    done = prepared(session, source, tmp_path / "out" / "train.jsonl", test_fraction=0.3)
    held = {problem.turns()[-1]["content"] for problem in read_problems(str(done.test_output))}
    rows = read_sft(str(done.output))
    trained = [messages[-2]["content"] for messages in rows]
    assert held and len(held) + len({*trained}) == 10
    assert not held & {*trained}
    assert len(trained) == sum(f"Print {i % 10}." not in held for i in range(15))
    assert common_system(rows) == "You are an expert programmer."
    assert {row["text"] for row in lines(done.output)} <= {*texts}


def test_bad_rows_of_one_s_own_stop(session: Session, tmp_path: Path) -> None:
    fine = {"prompt": "x", "tests": [{"stdin": "1", "stdout": "2"}]}
    for row, expected in (
        ("{", "line 3: not valid JSON"),
        ({**fine, "prompt": "y", "tests": [{"stdin": "1"}]}, "line 3: field 'tests.0.stdout'"),
    ):
        path = jsonl(tmp_path / "bad.jsonl", fine, "", row)
        with pytest.raises(InputError, match=rf"bad\.jsonl, {expected}"):
            prepared(session, path, tmp_path / "out.jsonl")
    ids = jsonl(tmp_path / "ids.jsonl", *({"prompt": p, "problem_id": "1"} for p in "xy"))
    with pytest.raises(InputError, match=r"ids\.jsonl, line 2: .* that of two prompts"):
        prepared(session, ids, tmp_path / "out.jsonl", keep_all=True)
    with pytest.raises(InputError, match=r"empty\.jsonl: the file is empty"):
        prepared(session, jsonl(tmp_path / "empty.jsonl"), tmp_path / "out.jsonl")
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(InputError, match=r"no\.parquet: cannot be read"):
        prepared(session, tmp_path / "no.parquet", tmp_path / "out.jsonl", purpose="problems")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv", "parquet", "arrow"])
def test_rows_of_any_format_by_the_columns_that_one_names(
    session: Session, tmp_path: Path, form: str
) -> None:
    rows = [{"question": f'Say "{i}",\nthen é.', "reply": f"it {i}"} for i in range(20)]
    path = tmp_path / f"rows.{form}"
    table = pa.Table.from_pylist(rows)
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "arrow":
        with ipc.new_stream(str(path), table.schema) as out:
            out.write_table(table)
    elif form == "csv":
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, ["question", "reply"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if form.endswith(".gz") else text)
    fields = {"prompt": "question", "answer": "reply"}
    done = prepared(session, path, tmp_path / "out.jsonl", fields=fields, keep_all=True)
    found = lines(done.output)
    assert [row["messages"][-1]["content"] for row in found] == [row["reply"] for row in rows]
    assert found[7]["messages"][0]["content"] == rows[7]["question"]
    unit = "row" if form in ("parquet", "arrow") else "line"
    assert found[0]["source"].startswith(f"rows.{form}, {unit} ")


def test_a_known_set_leaves_out_what_does_not_fit_but_stops_at_another(
    session: Session, tmp_path: Path
) -> None:
    rows = [{**SAMPLE, "prompt": f"Print {i}."} for i in range(5)]
    copy = jsonl(tmp_path / "copy.jsonl", {"prompt": "x"}, *rows, {**SAMPLE, "response": 5})
    done = prepared(session, "codeforces_cpp", tmp_path / "out.jsonl", copy, keep_all=True)
    assert (done.rows, done.read) == (5, 7)
    assert done.left_out == {
        "field 'difficulty' is missing": 1,
        "field 'response': expected text": 1,
    }
    sidecar = read_sidecar(done.output)
    assert sidecar is not None and sidecar.left_out == done.left_out
    other = jsonl(tmp_path / "other.jsonl", {"title": "x"}, {"title": "y"})
    with pytest.raises(InputError, match=r"other\.jsonl, line 1: field '.*' is missing"):
        prepared(session, "codeforces_cpp", tmp_path / "no.jsonl", other)


def test_a_set_s_own_tests_are_what_is_held_out(session: Session, tmp_path: Path) -> None:
    train = [
        {**APPS, "problem_id": i, "question": f"Double {i}.", "url": f"u{i}"} for i in range(9)
    ]
    test = [{**APPS, "problem_id": i, "question": f"Double {i}.", "url": f"u{i}"} for i in (20, 3)]
    jsonl(tmp_path / "apps" / "train.jsonl", *train)
    jsonl(tmp_path / "apps" / "test.jsonl", *test)
    done = prepared(session, "apps", tmp_path / "out.jsonl", tmp_path / "apps")
    tests = [row["problem_id"] for row in lines(done.test_output or Path())]
    assert tests == ["apps/test/20", "apps/test/3"]
    ids = [row["problem_id"] for row in lines(done.output)]
    assert ids == [f"apps/train/{i}" for i in range(9) if i != 3]
    assert done.left_out == {"its prompt or group is in the set's own test split": 1}


def test_an_entry_of_one_s_own(session: Session, tmp_path: Path) -> None:
    jsonl(tmp_path / "rows.jsonl", *({"q": f"Print {i}.", "code": f"x = {i}"} for i in range(4)))
    (tmp_path / "mine.yaml").write_text(
        "name: mine\norigin: {path: rows.jsonl}\nsplits: {train: {used_for: train}}\n"
        "licence: MIT\nlanguages: [python]\nuses: [sft]\nadapter: instruction\n"
        "options: {language: python}\nfields: {prompt: q, answer: code}\n"
    )
    done = prepared(session, tmp_path / "mine.yaml", tmp_path / "out.jsonl", test_fraction=0.25)
    assert done.rows + done.test_rows == 4 and done.test_rows
    assert {row["license"] for row in lines(done.output)} == {"MIT"}
    assert all(row["source"].startswith("mine, rows.jsonl, line ") for row in lines(done.output))


def test_the_sample_of_codeforces(session: Session, tmp_path: Path) -> None:
    copy = shared("codeforces_cpp.jsonl")
    done = prepared(session, "codeforces_cpp", tmp_path / "train.jsonl", copy)
    assert (done.purpose, done.read, done.test_rows) == ("sft", 373, 8)
    assert done.rows + sum(done.left_out.values()) == 373
    prompts = {row["messages"][0]["content"] for row in lines(done.output)}
    assert len(prompts) == 78 - 8
    held_out = read_problems(str(done.test_output))
    assert not prompts & {str(problem.prompt) for problem in held_out}


def test_no_prompt_of_mbpp_hides_what_its_tests_call(session: Session, tmp_path: Path) -> None:
    copy = shared("mbpp_train.jsonl")
    done = prepared(session, "mbpp", tmp_path / "out.jsonl", copy, purpose="problems")
    assert (done.rows, done.test_rows) == (342, 32)
    for problem in [*read_problems(str(done.output)), *read_problems(str(done.test_output))]:
        assert f"{problem.entry_point}(" in str(problem.prompt)
        assert f"{problem.entry_point}(" in str(problem.test_code)


def test_a_store_that_fails_under_way_is_one_line(session: Session) -> None:
    def fail(rows: pa.Table) -> pa.Table:
        raise InfraError("hf://rows: cannot be read (gone)")

    with pytest.raises(InfraError, match=r"^hf://rows: cannot be read \(gone\)$"):
        list(drain(ray.data.range(1).map_batches(fail)))


def command(hub: str, tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return python(hub, tmp_path, "-m", "haloforge", "data", "prepare", *arguments)


def python(hub: str, tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_set_on_the_hub_is_streamed_at_its_commit(tmp_path: Path) -> None:
    place = tmp_path / "hub" / "open-r1" / "codeforces" / "data"
    place.mkdir(parents=True)
    names = ["7/A", "8/A", "9/A"]
    rows = [
        {**CODEFORCES, "id": n, "aliases": [n], "description": f"Double {n}.", "title": n}
        for n in names
    ]
    for name, part in (("train-0", rows[:2]), ("train-1", [rows[0]]), ("test-0", rows[2:])):
        pq.write_table(pa.Table.from_pylist(part), place / f"{name}.parquet")
    (place.parent / "README.md").write_text("A card.")
    revision = entries()["codeforces"].origin.revision
    with dataset_hub(tmp_path / "hub") as (hub, asked):
        done = command(hub, tmp_path, "--dataset", "codeforces", "--output", "out/train.jsonl")
    assert done.returncode == 0, done.stderr
    assert "out/train.jsonl: 2 problems of 3 rows" in done.stdout
    assert "1 not there: its prompt is an earlier row's" in done.stdout
    found = lines(tmp_path / "out" / "train.jsonl")
    assert [row["source"] for row in found] == [
        f"open-r1/codeforces@{revision}, data/train-0.parquet, row {number}" for number in (1, 2)
    ]
    assert [row["group"] for row in found] == ["codeforces/7/A", "codeforces/8/A"]
    [test] = lines(tmp_path / "out" / "test.jsonl")
    assert test["group"] == "codeforces/9/A"
    sidecar = read_sidecar(tmp_path / "out" / "train.jsonl")
    assert sidecar is not None
    assert (sidecar.origin, sidecar.revision) == ("hf://datasets/open-r1/codeforces", revision)
    assert any(f"/resolve/{revision}/data/train-1.parquet" in path for path in asked)


NEWEST_OF = """
from haloforge.data.sources import find_source
source = find_source("hf://datasets/acme/rows")
print(source.revision, *source.files)
"""


def test_what_is_newest_on_the_hub_is_pinned(tmp_path: Path) -> None:
    jsonl(tmp_path / "hub" / "acme" / "rows" / "data" / "train.jsonl", {"prompt": "p"})
    with dataset_hub(tmp_path / "hub") as (hub, _):
        done = python(hub, tmp_path, "-c", NEWEST_OF)
    assert done.returncode == 0, done.stderr
    file = f"hf://datasets/acme/rows@{NEWEST}/data/train.jsonl"
    assert done.stdout.split() == [NEWEST, file]


@pytest.mark.parametrize("dataset", ["mbpp", "open_code_instruct"])
def test_no_network_is_one_line(tmp_path: Path, dataset: str) -> None:
    done = command("http://127.0.0.1:9", tmp_path, "--dataset", dataset, "--output", "o.jsonl")
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 1
    assert "hf://datasets/" in done.stderr and "cannot be read (" in done.stderr


def test_a_set_that_the_hub_has_not_is_named(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with dataset_hub(tmp_path / "hub") as (hub, _):
        done = command(hub, tmp_path, "--dataset", "mbpp", "--output", "o.jsonl")
    assert done.returncode == 2, done.stderr
    assert "google-research-datasets/mbpp" in done.stderr and "no such file" in done.stderr


@pytest.mark.parametrize("address", ["acme/none", "acme/rows@nowhere"])
def test_an_address_that_the_hub_has_not_is_bad_input(tmp_path: Path, address: str) -> None:
    jsonl(tmp_path / "hub" / "acme" / "rows" / "train.jsonl", {"prompt": "p"})
    with dataset_hub(tmp_path / "hub") as (hub, _):
        dataset = f"hf://datasets/{address}"
        done = command(hub, tmp_path, "--dataset", dataset, "--output", "o.jsonl")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert dataset in done.stderr and "no such data set or revision" in done.stderr
