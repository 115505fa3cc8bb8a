"""A run in object storage, as tests make it and look at it."""

import time
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from haloforge.model.adapter import INFO_FILE
from haloforge.store import remote
from haloforge.store.remote import run_folder
from haloforge.store.shards import ShardWriter
from tests.object_storage import BUCKET
from tests.results import judged

RUN = f"s3://{BUCKET}/run"


def stored(store: pafs.FileSystem, root: str = f"{BUCKET}/run") -> dict[str, bytes]:
    """What is in the bucket, but for leases."""
    found = store.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    return {
        each.path.removeprefix(f"{root}/"): store.open_input_stream(each.path).read()
        for each in found
        if each.type == pafs.FileType.File and not each.path.endswith(".lease")
    }


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The run's folder on another machine, after this one's driver has ended."""
    for each in remote._remotes.values():
        each.lease.leave()
    monkeypatch.setattr(remote, "_remotes", {})
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / f"cache-{time.time_ns()}"))
    return run_folder(RUN)


def commit(folder: Path, number: int) -> None:
    row = judged(number, 0, "passed")
    with ShardWriter(folder / "cycle_1") as shards:
        shards.add(row.sample, row.verdict)


def adapter(folder: Path) -> Path:
    made = folder / "made.tmp"
    made.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json", INFO_FILE):
        (made / name).write_text(name)
    return made
