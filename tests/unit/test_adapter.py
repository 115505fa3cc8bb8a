"""A finished adapter is on the disk before it counts."""

import os
from pathlib import Path
from typing import Any

import pytest

from haloforge.model.adapter import AdapterInfo, finish_training, read_info
from haloforge.model.bases import Base, resolve_base
from haloforge.model.policy import resolve_policy

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


def test_an_adapter_is_known_by_the_run_that_made_it(tmp_path: Path) -> None:
    """Its weights differ in their last bits where it was trained on other nodes."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    known = resolve_base(str(base))
    found = []
    for number, lineage in enumerate(("run", "run", None)):
        made = tmp_path / f"made-{number}"
        made.mkdir()
        (made / "adapter_config.json").write_text('{"r": 1}')
        (made / "adapter_model.safetensors").write_text(str(number))
        info = INFO.model_copy(
            update={"base": str(base), "base_digest": known.digest, "lineage": lineage}
        )
        finish_training(made, tmp_path / f"final-{number}", known, info, "a card")
        found.append(resolve_policy(str(tmp_path / f"final-{number}")))
    one, other, before = found
    assert one.digest != other.digest and one.identity == other.identity == "run"
    assert before.identity == before.digest
