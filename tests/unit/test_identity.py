"""What a run is told by: a new setting changes nothing, a changed default does."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from haloforge import study as module
from haloforge.config import Settings, load_settings
from haloforge.data.problems import prompts_digest
from haloforge.rollout.settings import Sampling
from haloforge.schema import Problem
from haloforge.store.run import FIRST_DEFAULTS, identity_of
from haloforge.study import Study, study
from haloforge.train.settings import LoraSettings

ROOT = Path(__file__).parents[2]


class Toy(BaseModel):
    epochs: int = 3
    lora: LoraSettings = LoraSettings()


class NewToy(Toy):
    colour: str = "red"


def test_only_what_is_not_at_its_default_is_told() -> None:
    assert identity_of(Toy()) == {}
    told = identity_of(Toy(epochs=4, lora=LoraSettings(rank=8)))
    assert told == {"epochs": 4, "lora": {"rank": 8}}
    assert identity_of(Toy(epochs=4), {"epochs"}) == {}


def test_a_new_field_changes_nothing_until_it_is_set() -> None:
    assert identity_of(NewToy(epochs=4)) == identity_of(Toy(epochs=4))
    assert identity_of(NewToy(colour="blue")) == {"colour": "blue"}

    class NewProblem(Problem):
        colour: str = "red"

    row = {"problem_id": "p", "prompt": "Add.", "limits": {"wall_s": 1}}
    same = prompts_digest([Problem.model_validate(row)])
    assert prompts_digest([NewProblem.model_validate(row)]) == same
    assert prompts_digest([NewProblem.model_validate({**row, "colour": "blue"})]) != same


def test_a_changed_default_changes_what_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(BaseModel):
        epochs: int = 5

    monkeypatch.setitem(FIRST_DEFAULTS, "Toy.epochs", 3)
    assert identity_of(Toy()) == {"epochs": 5}
    assert identity_of(Toy(epochs=3)) == {}  # a recipe that names it gives what it gave


def first_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Of every setting in `model` and below it, as `Class.field`."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = f"{model.__name__}.{name}"
        if isinstance(field.default, BaseModel):
            found |= first_defaults(type(field.default))
        elif not field.is_required():
            usual = field.get_default(call_default_factory=True, validated_data={})
            default = FIRST_DEFAULTS.get(key, usual)
            found[key] = list(default) if isinstance(default, tuple) else default
    return found


def test_the_first_defaults_stay() -> None:
    """Where this fails: a new setting belongs into first_defaults.yaml; the old value of a changed
    default into FIRST_DEFAULTS, and no line of that file changes."""
    noted = yaml.safe_load(Path(__file__).with_name("first_defaults.yaml").read_text())
    assert first_defaults(Settings) | first_defaults(Sampling) == noted


@pytest.mark.parametrize("name", ["demo", "study"])
def test_the_committed_results_are_those_of_the_committed_recipes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are recognised from recipe and data as they are now; none is measured anew."""

    def pipeline(_: Settings) -> Any:
        raise AssertionError("not recognised")

    monkeypatch.setattr(module, "pipeline", pipeline)
    monkeypatch.setattr(
        module, "pool", lambda records, _: Study([row["seed"] for row in records], {}, {}, {})
    )
    results = ROOT / "jobs" / "results" / name
    seeds = sorted(int(path.stem.removeprefix("seed_")) for path in results.glob("seed_*.json"))
    assert seeds
    recipe = ROOT / "jobs" / f"{name}.yaml"
    runs = [load_settings(recipe, {"seed": seed}) for seed in seeds]
    assert study(runs, results).seeds == seeds
