"""A policy: a base model with or without an adapter, known by a digest."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from haloforge.errors import InputError
from haloforge.model.adapter import INFO_FILE, read_info
from haloforge.model.bases import Base, files_digest, resolve_base
from haloforge.schema import digest
from haloforge.store.remote import address_of, fetched


@dataclass(frozen=True)
class Policy:
    """What samples are drawn from: `base`, and the PEFT folder `adapter` on it, if any; `address`
    is where in object storage that is too. `lineage` says which run made it, where that is known:
    by it runs that sample from it know each other, on whatever nodes its weights were computed."""

    name: str
    base: Base
    adapter: Path | None
    digest: str
    system: str | None = None
    address: str | None = None
    lineage: str | None = None

    @property
    def identity(self) -> str:
        """What it is called in the identity of a run: its lineage, or the digest of its weights."""
        return self.lineage or self.digest

    @property
    def folder(self) -> Path | None:
        """What training wrote, an adapter or a whole model; None for any other base."""
        if self.adapter is not None:
            return self.adapter
        return self.base.path if (self.base.path / INFO_FILE).is_file() else None

    @property
    def lora_rank(self) -> int:
        """The rank of the adapter; 0 without one."""
        if self.adapter is None:
            return 0
        return int(json.loads((self.adapter / "adapter_config.json").read_text())["r"])

    def system_prompt(self, asked: str | None) -> str | None:
        """The system prompt to sample with: the one that it was trained with, or, of a base,
        `asked`. Raises InputError where it was trained with another than is asked for."""
        if asked is None or asked == self.system:
            return self.system
        if self.folder is None:
            return asked
        raise InputError(
            f"model '{self.name}' was trained with the system prompt {self.system!r}, the setting "
            f"`system` is {asked!r}: leave it out, or train with it"
        )

    def merge_into(self, folder: Path, dtype: Literal["bf16", "fp32"] = "bf16") -> None:
        """Writes base and adapter as one plain model folder, merged in fp32, saved in `dtype`.

        The merge of LoRA (Hu et al. 2021): W + (alpha / rank) B A for each adapted matrix. Engines
        sample from the one in bf16; that in fp32 answers as the adapter on its base in fp32 does.
        """
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if self.adapter is None:
            raise InputError(f"model '{self.name}' has no adapter, so there is nothing to merge")
        model = AutoModelForCausalLM.from_pretrained(self.base.path, dtype=torch.float32)
        merged = PeftModel.from_pretrained(model, self.adapter).merge_and_unload()
        merged.to(torch.bfloat16 if dtype == "bf16" else torch.float32).save_pretrained(folder)
        AutoTokenizer.from_pretrained(self.adapter).save_pretrained(folder)


def resolve_policy(name: str, base_called: Callable[[str], Base] = resolve_base) -> Policy:
    """The policy called `name`: an adapter folder of ours, here or in object storage, or any base
    that `base_called` knows, a model that was trained whole among them.

    Raises InputError where the adapter's base is no longer the one it was trained on.
    """
    folder = fetched(name) if "://" in name else Path(name).expanduser()
    if not (folder / "adapter_config.json").is_file():
        base = base_called(name)
        if not (folder / INFO_FILE).is_file():
            return Policy(name, base, None, base.digest)
        info = read_info(folder)  # all of its weights were trained, by us
        return Policy(name, base, None, base.digest, info.system, lineage=info.lineage)
    info = read_info(folder)
    base = base_called(info.base)
    if base.digest != info.base_digest:
        raise InputError(
            f"{name}: trained on {info.base} with digest {info.base_digest}, but that base is now "
            f"{base.digest}; restore the base it was trained on"
        )
    known = digest(base.digest, files_digest(folder))
    address = name if "://" in name else address_of(folder)
    return Policy(name, base, folder.resolve(), known, info.system, address, info.lineage)
