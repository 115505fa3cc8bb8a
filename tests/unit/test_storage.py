"""Names of files, here and elsewhere, and what stands beside those in a store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from haloforge.cli.main import cli
from haloforge.cli.options import LOCAL
from haloforge.config import load_settings
from haloforge.data import sidecar, streams
from haloforge.data.problems import read_problems
from haloforge.data.prompts import write_prompts
from haloforge.data.sidecar import lineage, read_sidecar, sidecar_path, write_sidecar
from haloforge.data.sources import find_source
from haloforge.data.split import split
from haloforge.data.streams import list_files, read_file
from haloforge.errors import InputError
from haloforge.model.bases import check_name
from haloforge.model.policy import resolve_policy
from haloforge.report.progress import Report
from haloforge.store import storage
from haloforge.store.remote import run_folder
from haloforge.store.storage import check_address, filesystem, located, within
from haloforge.train.checkpoint import Checkpoints

SHA = "0123456789abcdef0123456789abcdef01234567"
NAMES = ["a#b.jsonl", "c%20d.jsonl", "e f.jsonl", "g?h.jsonl"]
OPTIONS = "?endpoint_override=http://localhost:5000&region=eu-west-1"


def written(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).write_text(json.dumps({"prompt": name}) + "\n")
    return folder


KEYED = [
    "s3://KEY:S3CR@b/run",
    "s3://KEY:SE/CR@b/run",
    "s3://S3CR@b/run",
    "s3://b/run?access_key=KEY&secret_key=S3CR&region=us-east-1",
    "s3://b/run?session_token=S3CR",
    "s3://b/run?endpoint_override=http://KEY:S3CR@localhost:5000",
    "gs://KEY:S3CR@b/run",
    "gs://b/run?access_token=S3CR",
    "https://KEY:S3CR@b/run",
]


def silent(error: pytest.ExceptionInfo[InputError]) -> bool:
    return not any(word in str(error.value) for word in ("KEY:", "=KEY", "SE/CR", "S3CR"))


@pytest.mark.parametrize("address", KEYED)
def test_no_address_holds_credentials_and_none_is_repeated(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path))
    takes: list[Callable[[str], Any]] = [
        filesystem,
        run_folder,
        resolve_policy,
        check_name,
        lambda place: Checkpoints(place, "run", 2),
        lambda source: find_source(source, None, {}, False),
        lambda source: list_files(source),
        lambda source: read_problems(source),
        lambda output: load_settings(None, {"raft.output": output}),
        lambda base: load_settings(None, {}, [f"model={base}"]),
        lambda excluded: load_settings(None, {"raft.exclude": excluded}),
        lambda output: LOCAL.convert(output, None, None),
    ]
    for take in takes:
        with pytest.raises(InputError, match="holds credentials: leave them out") as told:
            take(address)
        assert silent(told)
    if address.startswith("s3"):
        assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(told.value)


def test_addresses_without_credentials_stay(tmp_path: Path) -> None:
    for address in (
        f"s3://b/a@b/c:d{OPTIONS}",
        "gs://anonymous@b/x",
        "hf://datasets/owner/name@main/x",
        f"file://{tmp_path}/a?key=b@c",
        str(tmp_path / "secret@key"),
    ):
        check_address(address)
    assert load_settings(None, {"ray.address": "http://user:word@head:8265"}).ray.address
    assert load_settings(None, {"system": "s3://KEY:S3CR@b"}).system, "a text, and no address"


@pytest.mark.parametrize(
    "command",
    [
        "data prepare --dataset starter --output {}",
        "data split x.jsonl --output {}",
        "data prompts x.jsonl --output {}",
        "data validate x.jsonl --fix {}",
        "data validate x.jsonl --report {}",
        "verify --input x.jsonl --output {}",
        "verify --references {}",
        "verify --references starter --output {}",
        "benchmark compare a b --output {}",
        "benchmark compare a {}",
        "model merge --model a --output {}",
        "study --results {}",
        "plan --rates-from {}",
        "raft train --prompts {}",
        "sft train --data {}",
    ],
)
def test_where_no_address_is_taken_one_line_says_so(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^s3://b/x: expected a path on this machine"):
        cli.main(command.format("s3://b/x").split(), standalone_mode=False)
    assert not [*tmp_path.iterdir()]


def test_files_are_called_by_their_paths(tmp_path: Path) -> None:
    written(tmp_path, NAMES)
    paths = [str(tmp_path / name) for name in NAMES]
    for folder in (tmp_path, f"file://{tmp_path}", f"{tmp_path}/"):
        assert list_files(str(folder)) == paths
    for path, name in zip(paths, NAMES, strict=True):
        assert list_files(f"file://{path}") == [path]
        [(_, text)] = read_file(f"file://{path}")
        assert json.loads(text) == {"prompt": name}
        assert list_files(Path(path).as_uri()) == [path]


def test_names_in_a_store_are_quoted_before_its_options() -> None:
    for place in ("s3://rows/in", "gs://anonymous@rows/in"):
        options = OPTIONS if place.startswith("s3") else "?scheme=http"
        addresses = within(f"{place}/{options}", NAMES)
        assert addresses[0] == f"{place}/a%23b.jsonl{options}"
        assert [filesystem(each)[1] for each in addresses] == [f"rows/in/{each}" for each in NAMES]
    assert within("hf://datasets/a/b", ["e f.jsonl"]) == ["hf://datasets/a/b/e f.jsonl"]
    with pytest.raises(InputError, match="expected '%23' for '#'"):
        filesystem("s3://rows/a#b.jsonl?region=eu-west-1")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of what is at s3://rows; the client that reaches a real one is not
    tried."""
    folder = tmp_path / "store"
    folder.mkdir()
    real = storage.filesystem

    def found(location: str) -> tuple[pafs.FileSystem, str]:
        if not location.startswith("s3://"):
            return real(location)
        return pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), real(
            f"{location}{'' if '?' in location else OPTIONS}"
        )[1].replace("rows", "store", 1)

    for module in (storage, streams, sidecar):
        monkeypatch.setattr(module, "filesystem", found)
    return folder


def told(origin: str, **filters: Any) -> dict[str, Any]:
    counts: dict[str, Any] = {"seed": None, "read": 1, "left_out": {}, "rows": 1}
    return {"origin": origin, "revision": None, "licence": "MIT", "filters": filters, **counts}


def test_what_is_in_a_store_has_a_digest_and_its_sidecar(store: Path) -> None:
    written(store, NAMES)
    for options in ("", OPTIONS):
        addresses = list_files(f"s3://rows{options}")
        assert addresses == [
            f"s3://rows/{name}.jsonl{options}" for name in ("a%23b", "c%2520d", "e%20f", "g%3Fh")
        ]
        asked = [json.loads(text)["prompt"] for each in addresses for _, text in read_file(each)]
        assert asked == NAMES
        [first, *_] = find_source(f"s3://rows{options}").files
        assert find_source(f"s3://rows{options}").named(f"{first}, line 1").startswith("a%23b")
    assert lineage("x", addresses[:1])["licence"] is None
    beside = write_sidecar(store / NAMES[0], **told("there"))
    come_from = lineage("x", addresses[:1])
    assert (come_from["revision"], come_from["licence"]) == (beside.sha256, "MIT")
    assert come_from["parents"] == [beside]
    both = lineage("x", addresses[:2])
    assert both["revision"].startswith(f"{addresses[0]} {beside.sha256}, {addresses[1]} ")
    assert (both["licence"], len(both["parents"])) == (None, 1)
    (store / NAMES[0]).write_text("{}\n")
    assert lineage("x", addresses[:1])["parents"] == []
    write_sidecar(store / NAMES[0], **told("there", part="test"))
    for address in (addresses[0], "s3://rows"):
        with pytest.raises(InputError, match=r"a%23b\.jsonl.*: test data"):
            find_source(address)


def test_a_path_as_an_address_has_the_lineage_of_the_path(tmp_path: Path) -> None:
    path = written(tmp_path, ["rows.jsonl"]) / "rows.jsonl"
    write_sidecar(path, **told("there"))
    of_path = lineage("x", list_files(str(path)))
    assert of_path["parents"] and lineage("x", list_files(f"file://{path}")) == of_path


def test_nothing_replaces_what_an_address_names(tmp_path: Path) -> None:
    path = written(tmp_path, ["train.jsonl"]) / "train.jsonl"
    before = path.read_bytes()
    write_sidecar(path, **told(f"file://{path}", part="train"))
    with pytest.raises(InputError, match="is read and would be replaced"):
        split(f"file://{path}", tmp_path, {"train": 1.0}, 0, Report())
    with pytest.raises(InputError, match="is read and would be replaced"):
        write_prompts(f"file://{path}", path, None, Report())
    assert path.read_bytes() == before


def test_what_is_on_the_hub_is_read_and_told_at_one_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def newest(hub: str, revision: str | None = None) -> str:
        asked.append((hub, revision))
        return SHA

    monkeypatch.setattr(storage, "newest", newest)
    known = "hf://datasets/google-research-datasets/mbpp"
    pinned = f"{known}@{SHA}/full/train-0.parquet"
    assert located(f"{known}@main/full/train-0.parquet") == pinned == located(pinned)
    assert asked == [("google-research-datasets/mbpp", "main")]

    (tmp_path / "google-research-datasets" / f"mbpp@{SHA}" / "full").mkdir(parents=True)
    files = {"train-0.parquet", "train-1.parquet"}
    for name in files:
        (tmp_path / "google-research-datasets" / f"mbpp@{SHA}" / "full" / name).touch()
    here = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(
        streams, "filesystem", lambda place: (here, place.removeprefix(storage.HUB))
    )
    listed = list_files(f"{known}/full")
    assert listed == [f"{known}@{SHA}/full/{name}" for name in sorted(files)]
    come_from = lineage(f"{known}/full", listed)
    assert (come_from["revision"], come_from["licence"]) == (SHA, "CC-BY-4.0")
    other = f"hf://datasets/acme/rows@{SHA[::-1]}/a.jsonl"
    assert lineage("x", [other])["revision"] == SHA[::-1]
    assert lineage("x", [other])["licence"] is None
    both = lineage("x", [pinned, other])
    assert both["revision"] == f"{pinned} {SHA}, {other} {SHA[::-1]}"
    assert both["licence"] is None and both["parents"] == []


def test_a_sidecar_that_is_none_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, ["rows.jsonl"]) / "rows.jsonl"
    for text in ("{", "{}", "\xff"):
        sidecar_path(path).write_text(text, "latin-1")
        with pytest.raises(InputError, match=r"rows\.jsonl\.meta\.json: "):
            read_sidecar(path)
