"""What a written file of rows is and where it came from, in a file beside it."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from haloforge.data.jsonl import first_fault
from haloforge.errors import InputError


class Sidecar(BaseModel):
    """Stands beside `train.jsonl` as `train.jsonl.meta.json`.

    `origin` is where the rows are from, `revision` its commit on the hub, or a digest of what was
    read: of several files each by its name. `filters` are the rules that rows went through, with
    what each left out in `left_out`. `rows` counts those in the file, of which `sha256` is the
    digest; `read` counts those that were looked at. `parents` are the sidecars of the files that
    were read and had one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    made_by: str
    origin: str
    revision: str | None
    licence: str | None
    filters: dict[str, Any]
    seed: int | None
    read: int
    left_out: dict[str, int]
    rows: int
    sha256: str
    parents: list["Sidecar"] = []


def sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.meta.json")


def write_sidecar(path: Path, **fields: Any) -> Sidecar:
    """Writes what stands beside the file `path`, which is read for its digest."""
    sidecar = Sidecar(made_by=f"haloforge {version('haloforge')}", sha256=_sha256(path), **fields)
    beside = sidecar_path(path)
    partial = beside.with_name(f"{beside.name}.tmp")
    partial.write_text(sidecar.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(beside)
    return sidecar


def read_sidecar(path: Path) -> Sidecar | None:
    """What stands beside `path`; None where nothing does, or where the file has changed since.

    Raises InputError for a sidecar that is none."""
    beside = sidecar_path(path)
    try:
        found = Sidecar.model_validate(json.loads(beside.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(f"{beside}: {first_fault(error)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{beside}: cannot be read ({error})") from None
    return found if found.sha256 == _sha256(path) else None


def lineage(origin: str, files: Sequence[str]) -> dict[str, Any]:
    """What a file made of the rows of `files`, at `origin`, says of where they are from: the fields
    `origin`, `revision`, `licence` and `parents` of its sidecar. To be asked before it is written,
    for it may raise as `read_sidecar` does.

    The licence is told where all files have one and the same. What is not on this machine is not
    read for a digest."""
    here = [Path(file) for file in files if Path(file).is_file()]
    parents = [parent for path in here if (parent := read_sidecar(path)) is not None]
    licences = {parent.licence for parent in parents}
    agreed = len(parents) == len(files) and len(licences) == 1
    digests = [_sha256(path) for path in here]
    if len(files) > 1:
        digests = [f"{path} {sha256}" for path, sha256 in zip(here, digests, strict=True)]
    return {
        "origin": origin,
        "revision": ", ".join(digests) or None,
        "licence": licences.pop() if agreed else None,
        "parents": parents,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
