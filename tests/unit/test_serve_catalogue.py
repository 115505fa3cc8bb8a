"""What clients can name: of models, adapters and runs, also while a run goes on."""

import json
import shutil
from pathlib import Path

import pytest

from haloforge.config import load_settings
from haloforge.errors import InputError
from haloforge.model.bases import Base, resolve_base
from haloforge.preflight import check_serve
from haloforge.serve.catalogue import Catalogue
from tests.adapters import random_adapter


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters on the tiny base, `one` and `two`."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("one", "two")):
        random_adapter(tiny_model, folder / name, seed)
    return folder


def add_cycle(run: Path, cycle: int, adapter: Path) -> None:
    shutil.copytree(adapter, run / f"cycle_{cycle}_final")


@pytest.fixture
def run(tmp_path: Path, made: Path) -> Path:
    """A RAFT run after its first cycle, and what else lies about in one."""
    folder = tmp_path / "raft"
    (folder / "cycle_1").mkdir(parents=True)
    add_cycle(folder, 1, made / "one")
    return folder


def test_an_adapter_is_served_beside_its_base(made: Path, tiny_model: Path) -> None:
    catalogue = Catalogue([str(made / "one")])
    assert list(catalogue.models()) == ["one", "tiny"]
    adapter, base = catalogue.find("one"), catalogue.find("tiny")
    assert adapter.policy.adapter == (made / "one").resolve()
    assert adapter.id == f"tiny:one:{adapter.policy.digest[:12]}"
    assert base.id == "tiny" and base.policy.adapter is None
    assert catalogue.bases()["tiny"].base.path == tiny_model
    assert catalogue.find(None) == adapter, "the first that was named"
    assert catalogue.find(adapter.id) == adapter, "as an answer calls it"
    assert not catalogue.grows


def test_a_run_s_new_adapter_is_there_at_once_and_is_the_latest(run: Path, made: Path) -> None:
    catalogue = Catalogue([str(run)])
    assert list(catalogue.models()) == ["cycle_1_final", "latest", "tiny"]
    assert catalogue.grows
    first = catalogue.find("latest")
    assert first.called == "cycle_1_final"
    for cycle in (2, 10):
        add_cycle(run, cycle, made / "two")
        assert catalogue.find(f"cycle_{cycle}_final").policy.digest != first.policy.digest
    catalogue.models(now=True)
    assert catalogue.find("latest").called == "cycle_10_final"
    assert catalogue.adapter(first.id).name.endswith("cycle_1_final"), "requests under way end"


def test_best_is_known_by_what_it_leads_to(run: Path, made: Path) -> None:
    add_cycle(run, 2, made / "two")
    (run / "best").symlink_to("cycle_1_final")
    catalogue = Catalogue([str(run)])
    before = catalogue.find("best")
    assert before.id == catalogue.find("cycle_1_final").id
    (run / "best").unlink()
    (run / "best").symlink_to("cycle_2_final")
    catalogue.models(now=True)
    assert catalogue.find("best").id == catalogue.find("cycle_2_final").id != before.id


def test_other_weights_under_a_name_are_another_model(run: Path, made: Path) -> None:
    catalogue = Catalogue([str(run)])
    before = catalogue.find("cycle_1_final")
    shutil.rmtree(run / "cycle_1_final")
    add_cycle(run, 1, made / "two")
    catalogue.models(now=True)
    assert catalogue.find("cycle_1_final").id != before.id
    with pytest.raises(InputError, match="no longer there"):
        catalogue.adapter(before.id)


def test_one_torn_adapter_does_not_hide_the_others(run: Path, made: Path) -> None:
    add_cycle(run, 2, made / "two")
    (run / "cycle_2_final" / "haloforge.json").write_text("{")
    catalogue = Catalogue([str(run)])
    assert list(catalogue.models()) == ["cycle_1_final", "latest", "tiny"]
    assert "cycle_2_final/haloforge.json" in catalogue.faults["cycle_2_final"]
    with pytest.raises(InputError, match="'cycle_2_final' cannot be served; the server's log"):
        catalogue.find("cycle_2_final")


def test_of_a_run_that_is_gone_the_base_is_left(run: Path) -> None:
    catalogue = Catalogue([str(run)])
    catalogue.models()
    run.rename(run.with_name("aside"))
    assert list(catalogue.models(now=True)) == ["tiny"]
    with pytest.raises(InputError, match="no model 'latest': there are tiny"):
        catalogue.find("latest")
    run.with_name("aside").rename(run)
    assert "latest" in catalogue.models(now=True)


def test_another_process_needs_no_more_than_the_bases(run: Path) -> None:
    found = Catalogue([str(run)])
    bases = found.bases()
    run.rename(run.with_name("aside"))
    catalogue = Catalogue(found.sources, bases)
    assert list(catalogue.models()) == ["tiny"]
    run.with_name("aside").rename(run)
    assert catalogue.models(now=True)["latest"].id == found.find("latest").id


def test_an_adapter_whose_base_has_changed_is_not_served(run: Path, made: Path) -> None:
    add_cycle(run, 2, made / "two")
    info = run / "cycle_2_final" / "haloforge.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"base_digest": "0" * 16}))
    catalogue = Catalogue([str(run)])
    assert "cycle_2_final" not in catalogue.models()
    assert "trained on" in catalogue.faults["cycle_2_final"]


def test_bases_are_looked_up_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(name: str) -> Base:
        asked.append(name)
        return resolve_base(name)

    monkeypatch.setattr("haloforge.serve.catalogue.resolve_base", resolve)
    catalogue = Catalogue([str(run)])
    for _ in range(3):
        catalogue.models(now=True)
    assert len(asked) == 1, "the hub would be asked each time"


def test_two_that_come_to_have_one_name_leave_the_first(run: Path, made: Path) -> None:
    other = made / "elsewhere" / "cycle_2_final"
    shutil.copytree(made / "two", other, dirs_exist_ok=True)
    catalogue = Catalogue([str(run), str(other)])
    before = catalogue.find("cycle_2_final")
    add_cycle(run, 2, made / "one")
    catalogue.models(now=True)
    assert catalogue.find("cycle_2_final").id != before.id
    assert list(catalogue.faults.values()) == ["another model has this name"]


def test_sources_are_those_of_the_folder_that_they_were_given_in(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    catalogue = Catalogue(["raft", "again=raft"])
    assert catalogue.sources == [str(run), f"again={run}"]


def test_names_can_be_given(run: Path, made: Path, tiny_model: Path) -> None:
    given = [f"mine={made / 'one'}", f"coder={tiny_model}", f"a={run}"]
    catalogue = Catalogue(given)
    assert list(catalogue.models()) == ["mine", "coder", "a/cycle_1_final", "a/latest"]
    assert {served.base for served in catalogue.models().values()} == {"coder"}
    assert catalogue.find("a/latest").id.startswith("coder:a/cycle_1_final:")


def test_what_cannot_be_served_is_refused_by_name(
    run: Path, made: Path, tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(InputError, match="no model is named"):
        check_serve(load_settings(None, {}))
    with pytest.raises(InputError, match="'a b' is no name"):
        Catalogue([f"a b={made / 'one'}"])
    with pytest.raises(InputError, match="no such folder"):
        Catalogue([str(tmp_path / "none")])
    with pytest.raises(InputError, match="two models are called 'one'"):
        Catalogue([str(made / "one"), f"one={made / 'two'}"]).models()
    with pytest.raises(InputError, match="no model 'gpt-4': there are one, tiny"):
        Catalogue([str(made / "one")]).find("gpt-4")
    other = tmp_path / "other" / "tiny"
    shutil.copytree(tiny_model, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    random_adapter(other, tmp_path / "three", 3)
    with pytest.raises(InputError, match="its base is not the 'tiny' of the others"):
        Catalogue([str(made / "one"), str(tmp_path / "three")]).bases()
