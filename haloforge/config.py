"""One tree of settings out of the rooms' own: YAML, then flags, then `--set room.key=value`."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from haloforge.benchmark.settings import BenchmarkSettings
from haloforge.data.generate.settings import GenerateSettings
from haloforge.errors import InputError
from haloforge.observe.settings import ObserveSettings
from haloforge.plan.settings import PlanSettings
from haloforge.raft.settings import RaftSettings
from haloforge.rollout.settings import RolloutSettings
from haloforge.serve.settings import ServeSettings
from haloforge.store.run import write_atomic
from haloforge.store.storage import check_address
from haloforge.train.settings import TrainSettings
from haloforge.verify.settings import VerifySettings

_TRAINING = ("raft", "train")
_RAFT_LEARNING_RATE = 5e-5


class NodeKind(BaseModel):
    """Nodes that are alike: how many there can be at most, and what Ray has on each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(ge=1)
    resources: dict[str, Annotated[float, Field(ge=0)]]


class RaySettings(BaseModel):
    """Which Ray: `address` of a cluster (or RAY_ADDRESS), else a private one on this machine.

    `num_cpus` and `object_store_mb` shape the private one only; None leaves the CPUs to Ray.

    Engines and trainers go only where the custom Ray resource `compute_resource` is; None is
    anywhere with a GPU, or with a CPU where there are none. `scales_to` are the nodes that the
    cluster can have when its autoscaler has added all that it may, those that are there included,
    as in [{count: 8, resources: {CPU: 96, GPU: 8}}]; None is what `ray up` was told, and that nodes
    are not added where it was not used. For nodes that are added, or that are lost and may come
    back, a stage waits `wait_s` seconds. `same_versions` refuses nodes with other versions of what
    shapes a result, `check_memory` models that by estimate do not fit the memory of the nodes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = None
    num_cpus: int | None = Field(None, ge=1)
    object_store_mb: int = Field(512, ge=100)
    compute_resource: str | None = None
    scales_to: list[NodeKind] | None = None
    wait_s: float = Field(900, ge=0)
    same_versions: bool = True
    check_memory: bool = True


class SftSettings(BaseModel):
    """Supervised fine-tuning before RAFT; `epochs` and `learning_rate` stand in for `train`'s.

    `difficulty` takes the references of these difficulties where `data` is the starter set (empty:
    all), `limit` a fixed subset of the conversations. `validation` holds conversations out of
    training: a share of them, in which none has a prompt that is trained on, or a file of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = "starter"
    difficulty: list[str] = []
    limit: int | None = Field(None, ge=1)
    validation: Annotated[float, Field(gt=0, lt=1)] | str | None = None
    output: str = "models/sft"
    epochs: float | None = Field(None, gt=0)
    learning_rate: float | None = Field(None, gt=0)


class Settings(BaseModel):
    """Everything that can be set. `model` is the base (None: chosen by what Ray sees), `language`
    the one that problems which name none are answered in, `system` the system prompt, `seed` what
    training, selection and resampling draw from (`train.seed` can be set apart); engines do not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    system: str | None = None
    language: str | None = None
    seed: int = Field(0, ge=0)
    output: str = "runs/pipeline"
    ray: RaySettings = RaySettings()
    rollout: RolloutSettings = RolloutSettings()
    verify: VerifySettings = VerifySettings()
    train: TrainSettings = TrainSettings()
    sft: SftSettings = SftSettings()
    raft: RaftSettings = RaftSettings()
    benchmark: BenchmarkSettings = BenchmarkSettings()
    serve: ServeSettings = ServeSettings()
    plan: PlanSettings = PlanSettings()
    generate: GenerateSettings = GenerateSettings()
    observe: ObserveSettings = ObserveSettings()

    @model_validator(mode="before")
    @classmethod
    def _rate_of_raft(cls, tree: Any) -> Any:
        """5e-5, where nothing says another: its own setting, `train`'s, or the DeepSpeed JSON."""
        rooms = [tree.get(room, {}) if isinstance(tree, dict) else None for room in _TRAINING]
        raft, train = rooms
        if not isinstance(raft, dict) or not isinstance(train, dict):
            return tree
        if "learning_rate" in {*raft, *train} or train.get("deepspeed"):
            return tree
        return {**tree, "raft": {**raft, "learning_rate": _RAFT_LEARNING_RATE}}

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and "seed" in tree and isinstance(tree.get("train", {}), dict):
            return {**tree, "train": {"seed": tree["seed"], **tree.get("train", {})}}
        return tree


def load_settings(
    path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Settings:
    """The settings in the YAML file `path`, over them `flags` (dotted names; None is not given),
    over them `assignments` (`room.key=value`, the value read as YAML).

    Raises InputError naming the file, the key, the nearest known key and what was expected.
    """
    tree: dict[str, Any] = _read(path) if path else {}
    _check_keys(tree, Settings, str(path), ())
    for name, value in (flags or {}).items():
        if value is not None:
            _put(tree, name.split("."), value)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: expected room.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        _put(tree, name.strip().split("."), value)
        _check_keys(tree, Settings, "--set", ())
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        raise InputError(f"setting {key}: {message} (found {fault['input']!r})") from None
    _check_addresses(settings.model_dump(exclude={"ray", "system"}), "setting ")
    return settings


def by_dotted_name(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The leaves of a tree of settings, as `train.learning_rate`; an empty mapping is a leaf."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= by_dotted_name(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def save_settings(settings: Settings, folder: Path) -> None:
    """Stores the resolved settings with the run in `folder`, as `config.yaml`."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    write_atomic(folder / "config.yaml", text)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{place}: not valid YAML") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected settings as 'key: value', found {type(tree).__name__}")
    return tree


def _check_keys(
    tree: Mapping[str, Any], model: type[BaseModel], place: str, above: tuple[str, ...]
) -> None:
    for key, value in tree.items():
        field = model.model_fields.get(str(key))
        if field is None:
            name = ".".join((*above, str(key)))
            nearest = _nearest(name, str(key))
            raise InputError(f"{place}: unknown setting '{name}'; did you mean '{nearest}'?")
        room = field.annotation
        if isinstance(room, type) and issubclass(room, BaseModel):
            if not isinstance(value, Mapping):
                raise InputError(f"{place}: '{key}' holds settings of its own, found {value!r}")
            _check_keys(value, room, place, (*above, str(key)))


def _check_addresses(value: Any, name: str) -> None:
    """All texts in `value`: where one holds credentials the setting is named."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_addresses(inner, f"{name}{key}" if name.endswith(" ") else f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_addresses(inner, name)
    elif isinstance(value, str):
        try:
            check_address(value)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None


def _nearest(name: str, key: str) -> str:
    """The known setting most like `name`; the same last key in another room comes first."""
    known = list(_names(Settings, ()))
    same_key = [other for other in known if other.rpartition(".")[2] == key]
    return get_close_matches(name, same_key or known, 1, cutoff=0)[0]


def _names(model: type[BaseModel], above: tuple[str, ...]) -> list[str]:
    names: list[str] = []
    for key, field in model.model_fields.items():
        room = field.annotation
        if isinstance(room, type) and issubclass(room, BaseModel):
            names += _names(room, (*above, key))
        else:
            names.append(".".join((*above, key)))
    return names


def _put(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise InputError(f"setting '{key}' holds no settings of its own, found {inner!r}")
        tree = inner
    tree[keys[-1]] = value
