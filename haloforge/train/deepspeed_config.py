"""DeepSpeed's configuration: from our settings, and from a DeepSpeed JSON of the user's own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haloforge.errors import InputError

if TYPE_CHECKING:
    from haloforge.train.settings import TrainSettings

AUTO = "auto"
QUIET = 1_000_000_000  # steps
# What a DeepSpeed JSON says by a setting of ours: key, setting, the setting's value for the key's.
_DEVICES = {"cpu": True, "none": False}
_SAME: tuple[tuple[str, str, Any], ...] = (
    ("zero_optimization.stage", "zero_stage", int),
    ("zero_optimization.offload_optimizer.device", "cpu_offload", _DEVICES.__getitem__),
    ("bf16.enabled", "dtype", lambda on: "bf16" if on else "fp32"),
    ("gradient_clipping", "max_grad_norm", float),
    ("train_batch_size", "batch_size", int),
    ("train_micro_batch_size_per_gpu", "micro_batch_size", int),
    ("optimizer.params.lr", "learning_rate", float),
    ("optimizer.params.weight_decay", "weight_decay", float),
)
_ADAMW = ("betas", "eps")  # what AdamW is handed beside the rate and the decay
_REFUSED = {
    "gradient_accumulation_steps": "it follows from train.batch_size",
    "scheduler": "train.schedule and train.warmup_ratio say that",
    "communication_data_type": "gradients are summed in fp32",
    "data_types": "gradients are summed in fp32",
    "zero_force_ds_cpu_optimizer": "AdamW is PyTorch's, also where it is offloaded",
}


def read_deepspeed(path: str) -> dict[str, Any]:
    """The configuration in a DeepSpeed JSON, without what is `auto`.

    Raises InputError naming the file and the fault, and what it asks for that is not ours to give.
    """
    try:
        found = json.loads(Path(path).expanduser().read_text())
    except OSError as error:
        raise InputError(f"train.deepspeed={path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: expected JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected an object of DeepSpeed's configuration")
    config: dict[str, Any] = _without_auto(found)
    for key, reason in _REFUSED.items():
        if key in config:
            raise InputError(f"{path}: '{key}' cannot be set here: {reason}; leave it out")
    if _at(config, "fp16.enabled"):
        raise InputError(f"{path}: 'fp16.enabled': training is in bf16 or fp32 (train.dtype)")
    kind = _at(config, "optimizer.type")
    if kind not in (None, "Adam", "AdamW"):
        raise InputError(f"{path}: 'optimizer.type' is {kind}: it is always AdamW")
    known = {"lr", "weight_decay", *_ADAMW}
    if unknown := sorted(set(_at(config, "optimizer.params") or ()) - known):
        raise InputError(
            f"{path}: 'optimizer.params.{unknown[0]}' is not known; known are {sorted(known)}"
        )
    return config


def settings_from(path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, the settings that were set, with those that the JSON at `path` sets in its words.

    Raises InputError naming both sides of each conflict.
    """
    config, settings, conflicts = read_deepspeed(path), dict(given), []
    for key, name, value_of in _SAME:
        found = _at(config, key)
        if found is None:
            continue
        try:
            value = value_of(found)
        except (TypeError, ValueError):
            raise InputError(f"{path}: '{key}' is {found!r}: expected a number") from None
        except KeyError:
            raise InputError(f"{path}: '{key}' is {found!r}: expected {list(_DEVICES)}") from None
        if given.get(name) is not None and _differ(given[name], value):
            conflicts.append(f"{key} is {found}, but train.{name} is {given[name]}")
        settings[name] = value
    if conflicts:
        raise InputError(f"{path} and the settings differ: {'; '.join(conflicts)}; set one alone")
    return settings


def _differ(one: Any, other: Any) -> bool:
    try:
        return float(one) != float(other)
    except ValueError:
        return str(one) != str(other)


def adamw_options(own: Mapping[str, Any]) -> dict[str, Any]:
    """What the user's own configuration tells AdamW, beside the rate and the decay."""
    given = _at(own, "optimizer.params") or {}
    return {name: given[name] for name in _ADAMW if name in given}


def deepspeed_config(settings: "TrainSettings", own: Mapping[str, Any] = {}) -> dict[str, Any]:
    """What DeepSpeed is told: the user's `own` configuration, with ours over it.

    Micro-batches vary in size and the loop sets the boundaries of accumulation itself, so the
    batch sizes here only satisfy DeepSpeed's arithmetic and scale nothing.
    """
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.cpu_offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if settings.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": settings.dtype == "bf16"},
        "communication_data_type": "fp32",  # an adapter's gradients are small: sum them exactly
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # AdamW is PyTorch's, also where it is offloaded
    }
    if settings.zero_stage >= 2:
        ours["data_types"] = {"grad_accum_dtype": "fp32"}
    rest = {
        key: value for key, value in own.items() if key not in ("optimizer", "train_batch_size")
    }
    return _merged(rest, ours | {"steps_per_print": own.get("steps_per_print", QUIET)})


def _without_auto(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `auto` leaves to whoever reads the JSON is left to us."""
    return {
        key: _without_auto(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if value != AUTO
    }


def _at(config: Mapping[str, Any], dotted: str) -> Any:
    """The value of a key `a.b.c`, None where there is none."""
    value: Any = config
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged
