"""Which files of a copy train, and which are tests."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from haloforge.data import sources
from haloforge.data.lines import Writing, write
from haloforge.data.plan import plan
from haloforge.data.sidecar import lineage, write_sidecar
from haloforge.data.sources import find_source
from haloforge.data.streams import ROWS
from haloforge.errors import InputError
from haloforge.store import storage
from tests.unit.test_prepare import folder

SHA = "0123456789abcdef0123456789abcdef01234567"


def names(base: str, files: tuple[str, ...]) -> list[str]:
    return [file.removeprefix(f"{base}/") for file in files]


@pytest.mark.parametrize(
    ("dataset", "where", "file"),
    [
        ("apps", "copies/apps/test", "0000.parquet"),
        ("apps", "copies/apps-test/default", "0000.parquet"),
        ("codeforces", "s/test", "data-00000-of-00001.arrow"),
    ],
)
def test_a_copy_of_the_tests_is_known_by_its_folder(
    tmp_path: Path, dataset: str, where: str, file: str
) -> None:
    copy = folder(tmp_path / where, file)
    for location in (copy, f"{copy}/{file}"):
        with pytest.raises(InputError, match="--allow-test-data takes it"):
            find_source(dataset, location)
        assert find_source(dataset, location, allow_test_data=True).files == (f"{copy}/{file}",)


def test_each_file_of_a_copy_is_told_by_what_fits_it(tmp_path: Path) -> None:
    copy = folder(tmp_path / "v", "validation.parquet", "test.parquet")
    found = find_source("code_contests", copy)
    assert names(copy, found.files) == ["validation.parquet"]
    assert names(copy, found.test_files) == ["test.parquet"]
    copy = folder(tmp_path / "w", "data/train-00000.parquet", "test.parquet", "more.parquet")
    found = find_source("code_contests", copy)
    assert names(copy, found.files) == ["data/train-00000.parquet"]
    assert names(copy, found.test_files) == ["test.parquet"]


def test_a_folder_holds_files_beside_those_of_rows(tmp_path: Path) -> None:
    beside = ["dataset_info.json", "a/state.json", "rows.jsonl.meta.json", "dataset_dict.json"]
    own = folder(tmp_path / "own", "rows.jsonl", "a/rows.json", "dataset_infos.json")
    for name in beside[:2] + beside[3:]:
        folder(tmp_path / "own", name)
    write_sidecar(Path(own) / "rows.jsonl", **told("rows", {}))
    assert names(own, find_source(own).files) == ["a/rows.json", "rows.jsonl"]


def told(origin: str, filters: dict[str, Any], licence: str | None = None) -> dict[str, Any]:
    counts: dict[str, Any] = {"seed": None, "read": 1, "left_out": {}, "rows": 1}
    return {"origin": origin, "revision": None, "licence": licence, "filters": filters, **counts}


def test_what_was_held_out_once_trains_nobody_by_mistake(tmp_path: Path) -> None:
    own = folder(tmp_path, "train.jsonl", "test.jsonl")
    assert len(find_source(own).files) == 2  # somebody's own, of which nothing is known
    write_sidecar(tmp_path / "test.jsonl", **told("rows", {"part": "test"}))
    for dataset in (own, f"{own}/test.jsonl", f"file://{own}"):
        with pytest.raises(InputError, match=r"/test\.jsonl: test data"):
            find_source(dataset)
        assert find_source(dataset, allow_test_data=True).files


def test_what_is_made_of_tests_is_held_out_as_well(tmp_path: Path) -> None:
    own = folder(tmp_path, "test.jsonl", "fixed.jsonl", "prompts.jsonl", "parts/train.jsonl")
    write_sidecar(tmp_path / "test.jsonl", **told("set", {"part": "test"}))
    for name, of, filters in (
        ("fixed.jsonl", "test.jsonl", {"similar": 0.8}),
        ("prompts.jsonl", "fixed.jsonl", {"prompts": "distinct"}),
        ("parts/train.jsonl", "prompts.jsonl", {"part": "train"}),
    ):
        come_from = lineage(of, [f"{own}/{of}"])
        write_sidecar(tmp_path / name, **{**told(of, filters), **come_from})
        with pytest.raises(InputError, match=f"/{name}: test data"):
            find_source(f"{own}/{name}")
        assert find_source(f"{own}/{name}", allow_test_data=True).parents


@pytest.mark.parametrize(
    ("row", "refused"),
    [
        ({"task_id": "HumanEval/0", "prompt": "def f():"}, True),
        ({"id": "Mbpp/11", "q": "x"}, True),
        ({"task_id": 510, "text": "x", "code": "y", "test_list": ["assert f()"]}, True),
        ({"problem_id": "mbpp/601", "prompt": "x"}, False),
        ({"task_id": 601, "text": "x", "code": "y", "test_list": ["assert f()"]}, False),
        ({"task_id": 11, "prompt": "x"}, False),
        ({"task_id": "Mine/1", "prompt": "as in HumanEval/1"}, False),
        ({}, False),
    ],
)
def test_a_benchmark_s_rows_are_known_by_their_ids(
    tmp_path: Path, row: dict[str, Any], refused: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    for fields in ({}, {"prompt": "prompt"}):
        if refused:
            with pytest.raises(InputError, match=r"rows\.jsonl: test data"):
                find_source(str(path), fields=fields)
        assert find_source(str(path), fields=fields, allow_test_data=refused).files


def test_a_split_of_tests_on_the_hub_is_known_by_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, mbpp = f"hf://datasets/google-research-datasets/MBPP@{SHA}", "google-research-datasets"
    split = {name: f"{root}/full/{name}-00000.parquet" for name in ("train", "test")}

    def listed(location: str) -> list[str]:
        return [location] if location.endswith(".parquet") else [*split.values()]

    monkeypatch.setattr(sources, "list_files", listed)
    for address in (
        split["test"],
        root,  # of which one file is
        f"hf://datasets/{mbpp}/mbpp@refs/convert/parquet/sanitized/test/0000.parquet",
        f"hf://datasets/codeparrot/apps@{SHA}/test.jsonl",
    ):
        with pytest.raises(InputError, match="--allow-test-data takes it"):
            find_source(address)
    found = find_source(split["train"])
    assert (found.files, found.licence) == ((split["train"],), "CC-BY-4.0")
    assert find_source(split["test"], allow_test_data=True).files == (split["test"],)


def test_a_licence_that_all_files_have_is_kept(tmp_path: Path) -> None:
    own = folder(tmp_path, "a.jsonl", "b.jsonl")
    write_sidecar(tmp_path / "a.jsonl", **told("a", {}, "MIT"))
    assert find_source(own).licence is None
    write_sidecar(tmp_path / "b.jsonl", **told("b", {}, "MIT"))
    assert find_source(own).licence == "MIT"
    write_sidecar(tmp_path / "b.jsonl", **told("b", {}, "Apache-2.0"))
    assert find_source(own).licence is None


def test_a_set_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def newest(hub: str, revision: str | None = None) -> str:
        asked.append((hub, revision))
        return SHA

    def listed(location: str) -> list[str]:
        return [f"{location}/full/{name}-0.parquet" for name in ("train", "validation", "test")]

    monkeypatch.setattr(storage, "newest", newest)
    monkeypatch.setattr(sources, "list_files", listed)
    for revision, wanted in (
        ("", None),
        ("@main", "main"),
        ("@abc1234", "abc1234"),
        ("@refs%2Fpr%2F1", "refs/pr/1"),
        ("@refs/convert/parquet", "refs/convert/parquet"),
    ):
        found = find_source(f"hf://datasets/acme/rows{revision}/data")
        assert (found.origin, found.revision) == (f"hf://datasets/acme/rows@{SHA}/data", SHA)
        assert asked.pop() == ("acme/rows", wanted)
    assert find_source(f"hf://datasets/acme/rows@{SHA}").revision == SHA
    assert not asked
    for address in ("openai/OpenAI_humaneval", f"evalplus/mbppplus@{SHA}/data"):
        with pytest.raises(InputError, match="--allow-test-data takes it"):
            find_source(f"hf://datasets/{address}")
        assert find_source(f"hf://datasets/{address}", allow_test_data=True).files

    def parts(**choices: Any) -> list[str]:
        files = find_source("mbpp", **choices).files
        return [file.rpartition("/")[2] for file in files]

    assert parts() == ["train-0.parquet"]
    assert parts(allow_test_data=True) == ["train-0.parquet", "test-0.parquet"]


def test_a_source_that_one_maps_is_kept(tmp_path: Path) -> None:
    path = folder(tmp_path, "rows.jsonl") + "/rows.jsonl"
    source = find_source(path, fields={"prompt": "q", "source": "from"})
    row = json.dumps({"q": "Print 1.", "from": "a book"})
    table = pa.table({"place": [f"{path}, line 1"], "row": [row]}, schema=ROWS)
    [found] = write(table, Writing(source, "problems")).to_pylist()
    assert json.loads(found["row"])["source"] == "rows.jsonl, line 1 (of a book)"


def test_an_output_replaces_nothing_of_others(tmp_path: Path) -> None:
    own = folder(tmp_path / "own", "rows.jsonl") + "/rows.jsonl"
    (tmp_path / "link").symlink_to(tmp_path / "own")
    for location in (own, f"file://{own}"):
        with pytest.raises(InputError, match="among what is read"):
            plan(find_source(location), tmp_path / "link" / "rows.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        plan(find_source(own), tmp_path)
    source, out = find_source(own), Path(folder(tmp_path / "out", "test.jsonl"), "train.jsonl")
    for origin in (None, "another.jsonl"):
        if origin:
            write_sidecar(out.with_name("test.jsonl"), **told(origin, {"part": "test"}))
        with pytest.raises(InputError, match=r"test\.jsonl: is there, and not held out of this"):
            plan(source, out)
        assert plan(source, out, keep_all=True) and plan(source, out, test_fraction=0.0)
    write_sidecar(out.with_name("test.jsonl"), **told(own, {"part": "test"}))
    assert plan(source, out)
