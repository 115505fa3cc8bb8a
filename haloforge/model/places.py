"""Folders of models on every node: what is a path on the driver's machine may be none elsewhere.

A node gets its own copy once: from object storage, where the folder has an address there, or, if it
has none by the driver's path, as the driver did, from the name of the base. By that path another
node may have what it once was: of an earlier run, when it was the driver's, or other weights.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from haloforge.errors import InputError
from haloforge.model.bases import Base, files_digest, resolve_base
from haloforge.model.policy import Policy
from haloforge.store.cache import cache_folder
from haloforge.store.machine import machine
from haloforge.store.remote import fetch


class Source(NamedTuple):
    """What a folder is a copy of: an address in object storage, or a base's name; and its digest,
    of which a copy bears the name. `files`: it is that of the folder's files, as of a base; an
    adapter's is of more."""

    place: str
    digest: str
    files: bool = True


@dataclass(frozen=True)
class Places:
    """Where the folders of a policy are from, by the paths of the driver's machine `host`."""

    sources: Mapping[Path, Source] = field(default_factory=dict)
    host: str = field(default_factory=machine)

    def here(self, path: Path) -> Path:
        """The folder on this node of what is at `path` on the driver's. Raises InputError where
        this node cannot have it."""
        source = self.sources.get(path)
        if source is None or (self.host == machine() and path.is_dir()):
            return path
        if "://" in source.place:
            return fetch(source.place, cache_folder() / "models" / source.digest)
        if path.is_dir() and (not source.files or source.digest in (path.name, files_digest(path))):
            return path
        try:
            base = resolve_base(source.place)
        except InputError:
            base = None
        if base is None or base.digest != source.digest:
            raise InputError(
                f"node {socket.gethostname()} has no such model as the driver's {path}: put it on "
                "storage that all nodes share at one path, or name it by a Hugging Face id or an "
                "address such as s3://bucket/model"
            )
        return base.path


HERE = Places()
"""Of folders that all nodes have by the same path."""


def places_of(policy: Policy) -> Places:
    """Where `policy`'s base and adapter are from."""
    base = policy.base
    sources = {base.path: Source(base.address or base.name, base.digest)}
    if policy.adapter is not None:
        place = policy.address or str(policy.adapter)
        sources[policy.adapter] = Source(place, policy.digest, files=False)
    return Places(sources, base.host)


def base_on_this_node(base: Base) -> Base:
    """`base` with the folder that this node has of it."""
    places = Places({base.path: Source(base.address or base.name, base.digest)}, base.host)
    return replace(base, path=places.here(base.path), host=machine())


def on_this_node(policy: Policy) -> Policy:
    """`policy` with the folders that this node has of it."""
    adapter = policy.adapter and places_of(policy).here(policy.adapter)
    return replace(policy, base=base_on_this_node(policy.base), adapter=adapter)
