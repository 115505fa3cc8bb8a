"""Where an engine reads a policy's weights from: the base's folder, or a merged copy for a while.

A copy lies in a temporary folder that bears the process id of the engine that made it. It is
deleted when it was read, also where that failed; what a killed engine leaves is cleared when the
next one starts on that machine.
"""

import asyncio
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from haloforge.model.policy import Policy

_PREFIX = "haloforge-merged-"


@asynccontextmanager
async def weights_of(policy: Policy) -> AsyncIterator[Path]:
    """A folder with all weights of `policy` as one plain model, there until the block ends."""
    if policy.adapter is None:
        yield policy.base.path
        return
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as folder:
        await asyncio.to_thread(policy.merge_into, Path(folder))
        yield Path(folder)


def prepare() -> None:
    """Deletes the merged copies on this machine whose engine is gone, and imports what merging
    needs: those seconds would be the first swap's."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)  # another engine may be doing the same
    for package in ("peft", "transformers", "deepspeed"):  # the last to save a model
        if importlib.util.find_spec(package):
            importlib.import_module(package)
