"""What a written file of rows is and where it came from, in a file beside it."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, ValidationError

from haloforge.data.catalogue import entries_on_hub
from haloforge.data.jsonl import first_fault, write_lines
from haloforge.errors import InputError
from haloforge.store.storage import apart, commit_of, filesystem, on_hub, reaching

_PART = 2**20  # bytes that are read at a time


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
    write_lines(sidecar_path(path), [sidecar.model_dump_json(indent=2)])
    return sidecar


def read_sidecar(file: Path | str) -> Sidecar | None:
    """What stands beside `file`, here or in object storage; None where nothing does, or where the
    file has changed since. On the hub nothing is looked for.

    Raises InputError for a sidecar that is none, InfraError for a store that does not answer."""
    held = _beside(str(file))
    return held if held is not None and held.sha256 == _sha256(file) else None


def _beside(file: str) -> Sidecar | None:
    """What stands beside `file`, whether it is of this file or of one that was there before."""
    if on_hub(file) is not None:
        return None
    place, options = apart(file)
    told = f"{place}.meta.json{options}"
    system, path = filesystem(told)
    with reaching(told):
        if system.get_file_info(path).type == pafs.FileType.NotFound:
            return None
        with system.open_input_stream(path, compression=None) as handle:
            text = handle.read()
    try:
        return Sidecar.model_validate(json.loads(text))
    except ValidationError as error:
        raise InputError(f"{told}: {first_fault(error)}") from None
    except ValueError as error:
        raise InputError(f"{told}: cannot be read ({error})") from None


def wrote(path: Path, origin: str, rule: str) -> bool:
    """Whether a file is one that was written of `origin`, unchanged since, by the command that has
    `rule` among its filters: that alone may be replaced unasked."""
    beside = read_sidecar(path) if path.is_file() else None
    return beside is not None and beside.origin == origin and rule in beside.filters


def lineage(origin: str, files: Sequence[str]) -> dict[str, Any]:
    """What a file made of the rows of `files`, at `origin`, says of where they are from: the fields
    `origin`, `revision`, `licence` and `parents` of its sidecar. To be asked before it is written,
    for it may raise as `read_sidecar` does.

    The revision is the commit of what is on the hub, and the digest of other files, which in object
    storage are read for that. The licence is told where all files have one and the same."""
    facts, parents, licences = [], [], set[str | None]()
    for file in files:
        commit = commit_of(file)
        sha256 = None if commit else _sha256(file)
        facts.append(str(commit or sha256))
        parent = _beside(file)
        if parent is not None and parent.sha256 == sha256:
            parents.append(parent)
            licences.add(parent.licence)
        else:
            licences.add(licence_on_hub(file))
    same = len({*facts}) == 1 and commit_of(files[0]) is not None
    named = (f"{file} {fact}" for file, fact in zip(files, facts, strict=True))
    return {
        "origin": origin,
        "revision": facts[0] if same or len(files) == 1 else ", ".join(named),
        "licence": licences.pop() if len(licences) == 1 else None,
        "parents": parents,
    }


def licence_on_hub(file: str) -> str | None:
    """The licence of a file of a repository on the hub that the catalogue knows."""
    place = on_hub(file)
    known = entries_on_hub(place[0]) if place else []
    return known[0].licence if known else None


def _sha256(file: Path | str) -> str:
    found = hashlib.sha256()
    system, path = filesystem(str(file))
    with reaching(str(file)), system.open_input_stream(path, compression=None) as handle:
        while part := handle.read(_PART):
            found.update(part)
    return found.hexdigest()
