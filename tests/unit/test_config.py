"""Settings: YAML, flags over it, --set over both; wrong ones named."""

from pathlib import Path

import pytest

from haloforge.config import load_settings, save_settings
from haloforge.errors import InputError


def test_flags_win_over_yaml_and_set_over_flags(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("raft: {cycles: 2, samples_per_prompt: 4}\ntrain: {epochs: 1}\n")
    settings = load_settings(path, {"raft.cycles": 3, "raft.output": None}, ["train.epochs=0.5"])
    assert settings.raft.cycles == 3
    assert settings.raft.samples_per_prompt == 4
    assert settings.raft.output == "models/raft"
    assert settings.train.epochs == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("raft: {cycels: 2}", "'raft.cycels'; did you mean 'raft.cycles'"),
        ("trian: {epochs: 2}", "'trian'; did you mean 'train"),
        ("epochs: 2", "did you mean '(train|sft|raft).epochs'"),
        ("raft: 3", "'raft' holds settings of its own"),
        ("- a\n- b", "expected settings as 'key: value'"),
        ("a: [", "line 1: not valid YAML"),
        ("raft: {keep_top_percent: 50}", "raft.keep_top_percent: .*less than or equal to 1"),
        ("verify: {verifier: gc}", "unknown verifier 'gc'; did you mean 'gcc'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        load_settings(path)


@pytest.mark.parametrize("assignment", ["train.epochs", "train.epoch=1", "seed.x=1"])
def test_a_wrong_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(InputError, match=r"--set|seed"):
        load_settings(None, {}, [assignment])


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    settings = load_settings(None, {"raft.cycles": 7, "benchmark.k": [1, 2]})
    save_settings(settings, tmp_path)
    assert load_settings(tmp_path / "config.yaml") == settings


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read"):
        load_settings(Path("nowhere.yaml"))


def test_one_seed_for_all_unless_training_has_its_own() -> None:
    assert load_settings(None, {"seed": 3}).train.seed == 3
    assert load_settings(None, {"seed": 3}, ["train.seed=5"]).train.seed == 5
