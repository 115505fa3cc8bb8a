"""Models on nodes that have no folder by the driver's path."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haloforge.errors import InputError
from haloforge.model import places
from haloforge.model.bases import Base, resolve_base
from haloforge.model.places import (
    HERE,
    Places,
    Source,
    base_on_this_node,
    on_this_node,
    places_of,
)
from haloforge.model.policy import Policy


def test_a_folder_that_is_here_is_taken_as_it_is(tmp_path: Path) -> None:
    found = Places({tmp_path: Source("s3://none/such", "d")})
    assert found.here(tmp_path) == tmp_path
    elsewhere = tmp_path / "none"
    assert HERE.here(elsewhere) == elsewhere, "who reads it says what is missing"


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """From here on this is another node; what is fetched there."""
    asked: list[Any] = []

    def fetch(address: str, folder: Path) -> Path:
        asked.append((address, folder.name))
        return folder

    monkeypatch.setattr(places, "machine", lambda: "another")
    monkeypatch.setattr(places, "fetch", fetch)
    return asked


def test_on_another_node_a_folder_by_the_drivers_path_may_be_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where that node was the driver's once, and the run began anew since."""
    (tmp_path / "run/final").mkdir(parents=True)
    base = Base("s3://b/base", "base", tmp_path, "base-digest", address="s3://b/base")
    policy = Policy("p", base, tmp_path / "run/final", "digest", address="s3://b/run/final")
    known = places_of(policy)
    assert on_this_node(policy) == policy, "the driver's own are as they are"
    asked = elsewhere(monkeypatch)
    here = on_this_node(policy)
    wanted = [("s3://b/base", "base-digest"), ("s3://b/run/final", "digest")]
    assert sorted(asked) == wanted
    assert here.adapter is not None and (here.adapter.name, here.base.path.name) == (
        "digest",
        "base-digest",
    )
    assert known.here(tmp_path / "run/final").name == "digest", "as trainers are told"


def test_a_base_by_the_drivers_path_is_taken_if_its_files_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    (folder / "config.json").write_text("{}")
    base = resolve_base(str(folder))
    elsewhere(monkeypatch)
    assert base_on_this_node(base).path == folder
    (folder / "model.safetensors").write_text("others!")
    with pytest.raises(InputError, match="has no such model as the driver's"):
        base_on_this_node(base)
    adapter = tmp_path / "adapter"  # on storage that all nodes mount
    adapter.mkdir()
    policy = Policy("p", replace(base, host="x"), adapter, "digest")
    assert places_of(policy).here(adapter) == adapter


def test_what_is_not_here_comes_from_its_address_or_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetch(address: str, folder: Path) -> Path:
        asked.append((address, folder.name))
        return folder

    base = Base("owner/name", "owner/name", tmp_path / "hub", "base-digest")
    policy = Policy("p", base, tmp_path / "run/final", "digest", address="s3://b/run/final")
    known = replace(base, path=tmp_path)
    monkeypatch.setattr(places, "fetch", fetch)
    monkeypatch.setattr(places, "resolve_base", lambda name: known)
    here = on_this_node(policy)
    assert here.base.path == tmp_path and asked == [("s3://b/run/final", "digest")]
    assert here.adapter is not None and here.adapter.name == "digest"
    assert (here.digest, here.name) == (policy.digest, policy.name)
    stored = replace(base, address="s3://b/base")
    assert places_of(replace(policy, base=stored)).sources[base.path].place == "s3://b/base"


def test_another_model_of_that_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Base("owner/name", "owner/name", tmp_path / "hub", "base-digest")
    other = replace(base, digest="another", path=tmp_path)
    policy = Policy("p", base, None, "base-digest")
    monkeypatch.setattr(places, "resolve_base", lambda name: other)
    with pytest.raises(InputError, match="has no such model as the driver's"):
        on_this_node(policy)

    def none(name: str) -> Base:
        raise InputError("no such folder")

    monkeypatch.setattr(places, "resolve_base", none)
    with pytest.raises(InputError, match="put it on storage that all nodes share"):
        on_this_node(policy)
