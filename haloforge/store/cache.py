"""Where this user's files are kept that any run may use again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`HALOFORGE_CACHE`, or `haloforge` in the user's cache folder."""
    given = os.environ.get("HALOFORGE_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "haloforge"
