"""A run folder and its identity: what may go on where an earlier run stopped."""

import json
import os
from pathlib import Path
from typing import Any

from haloforge.errors import InputError
from haloforge.schema import digest

_IDENTITY_FILE = "run.json"
Identity = dict[str, Any]


def open_run(folder: Path, identity: Identity, fresh: bool = False) -> str:
    """Makes or reopens the run in `folder` and returns its id, a digest of `identity`.

    `identity` maps names to what decides the samples (prompts, base, seed, settings), never a path,
    a time or a number of nodes. Raises InputError where the folder holds a run of another identity,
    naming the differences. `fresh` first sets an old run aside under a new name; none is deleted.
    """
    if fresh and folder.exists():
        set_aside(folder)
    path = folder / _IDENTITY_FILE
    text = json.dumps(identity, indent=2, sort_keys=True)
    identity = json.loads(text)  # as it will be read back
    if path.is_file():
        before = json.loads(path.read_text())
        changed = differences(before, identity)
        if changed:
            raise InputError(
                f"{folder} holds a run of other inputs or settings ({'; '.join(changed)}); undo "
                "the change, name another --output, or set the old run aside with --fresh"
            )
    else:
        write_atomic(path, text + "\n")
    return digest(text)


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """One line for each leaf in which two identities differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in differences(
                before.get(key, "absent"), now.get(key, "absent"), f"{name}.{key}".lstrip(".")
            )
        ]
    return [] if before == now else [f"{name}: was {before}, is now {now}"]


def set_aside(folder: Path) -> Path:
    """Renames `folder` to the first free of `<folder>.old-1`, `.old-2` and so on."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    return folder.rename(aside)


def write_atomic(path: Path, text: str) -> None:
    """Writes `text` to `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with partial.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)
