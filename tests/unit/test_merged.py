"""Merged copies of a policy last as long as they are read, whatever happens meanwhile."""

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.rollout.merged import weights_of

BASE = Base("base", "base", Path("/base"), "digest")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_base_is_read_where_it_lies(scratch: Path) -> None:
    async def read() -> Path:
        async with weights_of(Policy("base", BASE, None, "digest")) as folder:
            return folder

    assert asyncio.run(read()) == BASE.path


@pytest.mark.parametrize("fault", ["merging", "reading"])
def test_a_copy_is_deleted_also_when_the_swap_fails(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    seen: list[str] = []

    def merge_into(policy: Policy, folder: Path) -> None:
        (folder / "model.safetensors").write_text("part")
        seen.extend(path.name for path in scratch.iterdir())
        if fault == "merging":
            raise OSError("disk full")

    async def read() -> None:
        async with weights_of(Policy("tuned", BASE, Path("/adapter"), "tuned")):
            raise OSError("disk full")

    monkeypatch.setattr(Policy, "merge_into", merge_into)
    with pytest.raises(OSError, match="disk full"):
        asyncio.run(read())
    assert seen[0].startswith(f"haloforge-merged-{os.getpid()}-")
    assert not list(scratch.iterdir())
