"""Checkpoints are whole or passed over, and only as many are kept as were asked for."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from haloforge.errors import InputError, ResourceError
from haloforge.train.checkpoint import Checkpoints, Position

RUN = "a-run"


def state(step: int) -> dict[str, torch.Tensor]:
    return {"weight/a": torch.full((3, 2), float(step)), "exp_avg/a": torch.arange(6.0).view(3, 2)}


def checkpoints(folder: Path, keep: int = 2, run: str = RUN) -> Checkpoints:
    return Checkpoints(str(folder / "checkpoints"), run, keep)


def save(folder: Path, *steps: int, keep: int = 2, best: int | None = None) -> Checkpoints:
    made = checkpoints(folder, keep)
    for step in steps:
        position = Position(step, best, 0.5 if best else None, 1)
        made.save(position, state(step), [{"step": number} for number in range(1, step + 1)])
    return made


def test_what_was_saved_is_found(tmp_path: Path) -> None:
    assert checkpoints(tmp_path).latest() is None
    save(tmp_path, 3, 7)
    found = checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position == Position(7, None, None, 1)
    assert found.history[-1] == {"step": 7}
    assert found.tensors.keys() == state(7).keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in state(7).items())


@pytest.mark.parametrize("harm", ["cut", "changed", "no manifest", "half a manifest", "empty"])
def test_a_torn_one_is_passed_over_for_the_one_before(tmp_path: Path, harm: str) -> None:
    save(tmp_path, 3, 7)
    folder = tmp_path / "checkpoints" / RUN / "step_00000007"
    tensors, manifest = folder / "state.safetensors", folder / "manifest.json"
    data = tensors.read_bytes()
    match harm:
        case "cut":
            tensors.write_bytes(data[:-5])
        case "changed":
            tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "no manifest":
            manifest.unlink()
        case "half a manifest":
            manifest.write_text(manifest.read_text()[:40])
        case "empty":
            shutil.rmtree(folder)
            folder.mkdir()
    again = checkpoints(tmp_path)
    found = again.latest()
    assert found is not None
    assert found.position.step == 3
    again.save(Position(7), state(7), [])  # the run goes on, and gets there once more
    found = checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position.step == 7


def test_one_whose_best_is_torn_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save(tmp_path, 6, 9, best=6)
    (tmp_path / "checkpoints" / RUN / "step_00000006" / "manifest.json").unlink()
    assert checkpoints(tmp_path).latest() is None  # the one of step 3 was not among the newest
    save(tmp_path, 12, keep=3)
    found = checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position.step == 12


def test_storage_that_does_not_answer_tears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = save(tmp_path, 3, 7)

    def no_answer(path: str) -> bytes:
        raise OSError("timed out")

    monkeypatch.setattr(made, "_read", no_answer)
    with pytest.raises(OSError, match="timed out"):
        made.latest()


def test_one_of_another_run_is_not_gone_on_from(tmp_path: Path) -> None:
    save(tmp_path, 3)
    assert checkpoints(tmp_path, run="another").latest() is None


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    made = save(tmp_path, 1, 2, 3, 4, keep=2)
    assert made.steps() == [3, 4]
    there = (tmp_path / "checkpoints" / RUN).iterdir()
    assert sorted(path.name[-1] for path in there) == ["3", "4"]
    made = save(tmp_path, 5, 6, 7, keep=1, best=4)
    assert made.steps() == [4, 7]
    made.clear()
    assert not (tmp_path / "checkpoints" / RUN).exists()


def test_one_that_is_torn_takes_no_other_s_place(tmp_path: Path) -> None:
    made = save(tmp_path, 3, 12)
    (tmp_path / "checkpoints" / RUN / "step_00000012" / "state.safetensors").write_bytes(b"torn")
    made = save(tmp_path, 6, keep=1)
    assert made.steps() == [6]
    assert made.latest() is not None


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = save(tmp_path, 1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9, 9, 1000))
    with pytest.raises(ResourceError, match=r"does not fit .* name another place with train"):
        made.save(Position(2), state(2), [])
    assert made.steps() == [1]
    assert checkpoints(tmp_path).latest() is not None


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"train\.checkpoints=gopher://x/y: "):
        Checkpoints("gopher://x/y", RUN, 1)
