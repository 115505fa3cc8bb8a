"""The data sets that are known by name: one YAML file each, beside this one.

A user adds one more by a file of the same form, whose path is given in the place of a name.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path

from haloforge.data.catalogue.entry import Entry, read_entry, read_own_entry
from haloforge.data.specs import OWN
from haloforge.errors import InputError


@cache
def entries() -> dict[str, Entry]:
    """The entries of the catalogue by name, the bundled one first."""
    found = {}
    for file in sorted(files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(OWN):
            entry = read_entry(file.read_text("utf-8"), f"catalogue/{file.name}")
            if f"{entry.name}.yaml" != file.name:
                raise InputError(f"catalogue/{file.name}: field 'name': expected the file's name")
            found[entry.name] = entry
    return dict(sorted(found.items(), key=lambda item: item[1].origin.bundled is None))


def entries_on_hub(hub: str) -> list[Entry]:
    """The entries of the catalogue whose rows are in the repository `hub`, which may be written in
    other capitals: the hub does not tell them from small letters."""
    return [
        entry for entry in entries().values() if (entry.origin.hub or "").lower() == hub.lower()
    ]


def find_entry(dataset: str) -> Entry | None:
    """The entry that `dataset` names: one of the catalogue, or a user's own in a YAML file; None
    for other paths and names. Raises InputError for a file that is no entry."""
    if Path(dataset).suffix in OWN:
        return read_own_entry(Path(dataset))
    return entries().get(dataset)


__all__ = ["Entry", "entries", "entries_on_hub", "find_entry", "read_entry"]
