"""A finished adapter is on the disk before it counts."""

import os
from pathlib import Path
from typing import Any

import pytest

from haloforge.model.adapter import AdapterInfo, finish_training, read_info
from haloforge.model.bases import Base

INFO = AdapterInfo(
    base="b", base_public_id="b", base_digest="b", stage="sft", parent="b", chat_template=""
)


def test_all_files_are_on_the_disk_before_the_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, target = tmp_path / "work" / "trained", tmp_path / "final"
    (made / "tensorboard").mkdir(parents=True)
    for name in ("adapter_model.safetensors", "adapter_config.json", "tensorboard/events"):
        (made / name).write_text("{}")
    synced: list[int] = []
    before_name: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    rename = Path.rename

    def named(path: Path, to: Path) -> Any:
        if to == target:
            before_name.extend(synced)
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", named)
    base = Base(name="b", public_id="org/base", path=tmp_path, digest="d")
    finish_training(made, target, base, INFO, "a card")
    assert read_info(target) == INFO
    inside = {path.stat().st_ino for path in [target, *target.rglob("*")]}
    assert len(inside) == 7 and inside <= set(before_name)
    assert synced[-1] == tmp_path.stat().st_ino, "so is its name"
