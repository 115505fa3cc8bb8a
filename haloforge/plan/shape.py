"""The form of a base and its size under training, from its `config.json` alone: no weights."""

import json
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from haloforge.config import Settings
from haloforge.errors import InputError
from haloforge.model.adapter import read_info
from haloforge.model.bases import check_name, default_base

if TYPE_CHECKING:
    from haloforge.model.policy import Policy
    from haloforge.train.model import ModelSize


class Shape(NamedTuple):
    """A base called `name`, whose form was read from `source`: its size under training, what is
    trained counted in, and what the KV cache and a cut by tensor parallelism depend on."""

    name: str
    source: str
    size: "ModelSize"
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int

    @property
    def parameters(self) -> int:
        """Of the base alone, which is what an engine holds."""
        return self.size.parameters - self.added

    @property
    def added(self) -> int:
        """Parameters of the adapter; 0 where the whole model trains."""
        return self.size.trained if self.size.trained < self.size.parameters else 0


def shape_of(settings: Settings) -> Shape:
    """The shape of the model that `settings` begin with, as they train it.

    Raises InputError where nothing here says what its form is.
    """
    name = settings.raft.checkpoint or settings.model
    name = name or default_base(settings.plan.gpus_per_node)[0]
    adapter = Path(name).expanduser()
    adapter_path = adapter if (adapter / "adapter_config.json").is_file() else None
    if adapter_path is not None:
        name = read_info(adapter_path).base
    facts, source = _facts(name, settings.plan.architecture)
    return _shape(name, facts, source, adapter_path, settings)


def shape_at(policy: "Policy", settings: Settings) -> Shape:
    """The shape of `policy`, whose base is on this disk, as `settings` train it."""
    path = policy.base.path
    return _shape(
        policy.base.name, _read(path / "config.json"), str(path), policy.adapter, settings
    )


def _shape(
    name: str, facts: dict[str, Any], source: str, adapter: Path | None, settings: Settings
) -> Shape:
    from haloforge.train.model import model_size

    config = _config(facts, source)
    text = config.get_text_config()
    heads = text.num_attention_heads
    return Shape(
        name=name,
        source=source,
        size=model_size(config, adapter, settings.train),
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        max_positions=text.max_position_embeddings,
    )


def _facts(name: str, architecture: str | None) -> tuple[dict[str, Any], str]:
    """What says the form of `name`, and where it was found: the file that is given, the model's own
    folder, the hub's cache on this disk, or the forms that are shipped."""
    if architecture is not None:
        path = Path(architecture).expanduser()
        return _read(path / "config.json" if path.is_dir() else path), str(path)
    check_name(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _read(folder / "config.json"), str(folder)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json") if "/" in name else None
    if isinstance(cached, str):
        return _read(Path(cached)), "the Hugging Face cache"
    known = shipped()
    if name not in known:
        raise InputError(
            f"model '{name}' is not on this disk, and its form is not among the {len(known)} that "
            "come along: plan.architecture=PATH names its config.json"
        )
    return known[name], "the forms that come along"


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """The forms that come along, by the name of the base."""
    text = files("haloforge.plan").joinpath("architectures.yaml").read_text()
    known: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return known


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from None
    except ValueError:
        raise InputError(f"{path}: expected the JSON of a model's config.json") from None
    return found


def _config(facts: dict[str, Any], source: str) -> Any:
    from transformers import AutoConfig

    try:
        kind, rest = facts["model_type"], {k: v for k, v in facts.items() if k != "model_type"}
        return AutoConfig.for_model(kind, **rest)
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{source}: not a config.json that transformers knows: {reason}") from None
