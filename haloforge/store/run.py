"""A run folder and its identity: what may go on where an earlier run stopped."""

import json
import os
from collections.abc import Collection
from contextlib import suppress
from errno import EINVAL, ENOTSUP
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from haloforge.errors import InputError
from haloforge.schema import digest, sample_id
from haloforge.store.layout import LOGS, TENSORBOARD
from haloforge.store.lock import check_idle, hold
from haloforge.store.remote import folder_saved, renamed, saved, set_stored_aside

_IDENTITY_FILE = "run.json"
TORN = ".torn"
"""What the name of a file that a disk has spoilt ends in, once it is set aside."""
TOLD = (LOGS, TENSORBOARD)
"""Folders in a run's that hold nothing which the run is made of."""
Identity = dict[str, Any]
FIRST_DEFAULTS: dict[str, Any] = {
    "RaftSettings.learning_rate_decay": 1.0,
}
"""The default that a setting had first, as `Class.field`, of each whose default was changed since.
It stays what an identity leaves out: what was made under it is still told from what is made now."""


def identity_of(settings: BaseModel, exclude: Collection[str] = ()) -> Identity:
    """What `settings` say beyond their defaults, without the fields in `exclude`.

    A new setting thus changes no identity where it stands at its default, which does as before.
    """
    told: Identity = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        usual = field.get_default(call_default_factory=True, validated_data={})
        default = FIRST_DEFAULTS.get(f"{type(settings).__name__}.{name}", usual)
        if isinstance(value, BaseModel):
            value, default = identity_of(value), {}
        if name not in exclude and value != default:
            told[name] = value
    return told


def open_run(
    folder: Path, identity: Identity, fresh: bool = False, noted: Identity | None = None
) -> str:
    """Makes or reopens the run in `folder` and returns its id, a digest of `identity`.

    `identity` maps names to what decides the samples (prompts, base, seed, settings as
    `identity_of` has them), never a path, a time or a number of nodes. What is `noted` beside it
    must not change either, but is no part of the id. `fresh` first sets an old run aside under a
    new name; none is deleted. The folder is this process's until it ends.

    An identity that cannot be read is written anew where a sample in the folder proves that it was
    this one, or where nothing was made yet.

    Raises InputError where another process is at work in the folder, or where it holds a run of
    another identity, naming the differences, or of one that cannot be told.
    """
    if fresh and folder.exists():
        set_aside(folder)
    hold(folder)
    path = folder / _IDENTITY_FILE
    text = json.dumps(identity, indent=2, sort_keys=True)
    identity = json.loads(text)  # as it will be read back
    noted = noted or {}
    before = _read_identity(path, digest(text)) if path.is_file() else None
    if before is not None:
        changed = differences({**noted, **before}, {**identity, **noted})
        if changed:
            raise InputError(
                f"{folder} holds a run of other inputs or settings ({'; '.join(changed)}); undo "
                "the change, name another --output, or set the old run aside with --fresh"
            )
    else:
        told = json.dumps({**identity, **noted}, indent=2, sort_keys=True)
        write_atomic(path, told + "\n")
    return digest(text)


def _read_identity(path: Path, run: str) -> Identity | None:
    """None for one that cannot be read, and was that of `run`."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        if _is_of(run, path.parent):
            renamed(path, path.replace(path.with_name(f"{path.name}{TORN}")))
            return None
        raise InputError(
            f"{path} cannot be read ({error}), so which run this is cannot be told: put a copy of "
            "it back, name another --output, or set the old run aside with --fresh"
        ) from None


def _is_of(run: str, folder: Path) -> bool:
    """Whether the samples in `folder` are those of `run`, of whose id theirs are made. Where there
    is none, whether nothing was made: no file but those that say what is asked for."""
    shards = (
        path for place in (".", "cycle_*") for path in folder.glob(f"{place}/samples/*.parquet")
    )
    for shard in sorted(shards):
        with suppress(OSError, pa.ArrowException):
            for row in pq.read_table(shard, columns=_NAMED).slice(0, 1).to_pylist():
                known = sample_id(run, row["cycle"], row["problem_id"], row["index"])
                return bool(row["sample_id"] == known)
    return not any(
        path.is_file()
        for path in folder.glob("*/**/*")
        if path.relative_to(folder).parts[0] not in TOLD
    )


_NAMED = ["sample_id", "cycle", "problem_id", "index"]


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """One line for each leaf in which two identities differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in differences(
                before.get(key, "not set"), now.get(key, "not set"), f"{name}.{key}".lstrip(".")
            )
        ]
    return [] if before == now else [f"{name}: was {before}, is now {now}"]


def set_aside(folder: Path) -> str:
    """Renames `folder` to the first free of `<folder>.old-1`, `.old-2` and so on, and returns that.

    Raises InputError where another process is at work in it.
    """
    check_idle(folder)
    if stored := set_stored_aside(folder):
        return stored
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(aside)
    renamed(folder, aside)
    return str(aside)


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, one of figures that may be done without: nothing where there is no
    file, or a torn one, which is set aside under a name that ends in `.torn`."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        renamed(path, path.replace(path.with_name(f"{path.name}{TORN}")))
        return {}


def write_atomic(path: Path, text: str) -> None:
    """Writes `text` to `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with partial.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)
    saved(path)


def move_durably(folder: Path, target: Path) -> None:
    """Renames `folder` to `target`, on the same file system, once all that it holds is on the disk:
    also where the power fails, `target` is there whole or not at all."""
    for path in [*folder.rglob("*"), folder]:
        _to_disk(path)
    folder.rename(target)
    _to_disk(target.parent)
    folder_saved(target)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in (EINVAL, ENOTSUP)):  # some know no such thing
            raise
    finally:
        os.close(descriptor)
