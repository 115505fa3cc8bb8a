"""A model is sampled with the system prompt that it was trained with, or not at all."""

from pathlib import Path

import pytest

from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.model.policy import Policy

BASE = Base("toy", "toy", Path("toy"), "digest")
TRAINED = Policy("tuned", BASE, Path("tuned"), "other", "Be brief.")
SILENT = Policy("tuned", BASE, Path("tuned"), "other", None)


def test_a_base_takes_any() -> None:
    base = Policy("toy", BASE, None, "digest")
    assert base.system_prompt("Be brief.") == "Be brief."
    assert base.system_prompt(None) is None


def test_a_trained_model_has_its_own() -> None:
    assert TRAINED.system_prompt(None) == TRAINED.system_prompt("Be brief.") == "Be brief."


@pytest.mark.parametrize("policy", [TRAINED, SILENT])
def test_another_is_refused(policy: Policy) -> None:
    with pytest.raises(
        InputError, match=r"'tuned' was trained with the system prompt .* is 'Rhyme"
    ):
        policy.system_prompt("Rhyme.")
