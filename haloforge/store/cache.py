"""Where this user's files are kept that any run may use again."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """`HALOFORGE_CACHE`, or `haloforge` in the user's cache folder."""
    given = os.environ.get("HALOFORGE_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "haloforge"


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Lets one process of this machine at a time make `folder`; what the killed left is cleared.

    Gives a name beside it for what is not whole yet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for torn in folder.parent.glob(f"{folder.name}.*.tmp"):
            shutil.rmtree(torn)
        yield folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
