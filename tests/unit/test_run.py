"""Which run a folder holds, and what may go on there."""

from pathlib import Path

import pytest

from haloforge.errors import InputError
from haloforge.schema import sample_id
from haloforge.store.run import open_run, set_aside
from haloforge.store.shards import ShardWriter
from tests.raft_runs import Row, stored


def test_a_run_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    run = tmp_path / "run"
    identity = {"seed": 0, "sampling": {"temperature": 0.7}}
    first = open_run(run, identity)
    assert open_run(run, identity) == first
    with pytest.raises(InputError, match=r"sampling.temperature: was 0.7, is now 0.9"):
        open_run(run, {"seed": 0, "sampling": {"temperature": 0.9}})


def test_what_is_noted_must_not_change_and_names_no_sample(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = open_run(run, {"seed": 0}, noted={"weights": "a"})
    assert open_run(tmp_path / "other", {"seed": 0}, noted={"weights": "b"}) == first
    assert open_run(run, {"seed": 0}, noted={"weights": "a"}) == first
    with pytest.raises(InputError, match="weights: was a, is now b"):
        open_run(run, {"seed": 0}, noted={"weights": "b"})
    before = tmp_path / "before"
    open_run(before, {"seed": 0})  # as runs were before anything was noted
    assert open_run(before, {"seed": 0}, noted={"weights": "a"}) == first


TORN = [b"", b'{"seed": ', b"1", b"\xff"]


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("place", [".", "cycle_1", None])
def test_a_torn_identity_is_written_anew_where_samples_prove_it(
    tmp_path: Path, torn: bytes, place: str | None
) -> None:
    """Or where nothing was made."""
    run = open_run(tmp_path, {"seed": 0})
    if place is not None:
        identity = {"sample_id": sample_id(run, 1, "p", 0)}
        sample, verdict = stored(Row("p", 0, 1.0), 1)
        with ShardWriter(tmp_path / place) as shards:
            shards.add({**sample, **identity}, {**verdict, **identity})
    whole = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_bytes(torn)
    if place is not None:
        with pytest.raises(InputError, match=r"run.json cannot be read"):
            open_run(tmp_path, {"seed": 1})
    assert open_run(tmp_path, {"seed": 0}) == run
    assert (tmp_path / "run.json").read_text() == whole
    assert (tmp_path / "run.json.torn").read_bytes() == torn


@pytest.mark.parametrize("torn", TORN)
def test_a_run_that_cannot_be_told_is_refused_with_what_to_do(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "run" / "final_model").mkdir(parents=True)
    (tmp_path / "run" / "final_model" / "haloforge.json").write_text("{}")
    (tmp_path / "run" / "run.json").write_bytes(torn)
    with pytest.raises(InputError, match=r"run/run.json cannot be read .* --fresh"):
        open_run(tmp_path / "run", {"seed": 0})
    open_run(tmp_path / "run", {"seed": 0}, fresh=True)


def test_fresh_sets_the_old_run_aside(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run, {"seed": 0})
    (run / "precious").write_text("kept")
    open_run(run, {"seed": 1}, fresh=True)
    assert (tmp_path / "run.old-1" / "precious").read_text() == "kept"
    assert Path(set_aside(run)).name == "run.old-2"
