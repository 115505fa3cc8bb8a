"""Fixtures that every test may use: a tiny Llama with its tokenizer, a run in object storage."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from haloforge.store import lease, remote
from haloforge.store.remote import Remote, run_folder
from tests.object_storage import BUCKET, environment, s3_server
from tests.stored_run import RUN
from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama; see `make_tiny_model`."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as address:
        yield address


@pytest.fixture
def store(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pafs.FileSystem]:
    """The bucket, empty, and a machine that has no copy of anything."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lease, "_SETTLE_S", 0.0)
    mine: dict[Path, Remote] = {}
    monkeypatch.setattr(remote, "_remotes", mine)
    system, _ = pafs.FileSystem.from_uri(f"s3://{BUCKET}")
    system.delete_dir_contents(BUCKET, missing_dir_ok=True)
    yield system
    for each in mine.values():
        each.lease.leave()


@pytest.fixture
def folder(store: pafs.FileSystem) -> Path:
    return run_folder(RUN)
