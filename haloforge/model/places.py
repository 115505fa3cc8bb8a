"""Folders of models on every node: what is a path on the driver's machine may be none elsewhere.

A node that has no folder by the driver's path gets its own copy once: from object storage, where
the folder has an address there, or as the driver did, from the name of the base.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from haloforge.errors import InputError
from haloforge.model.bases import Base, resolve_base
from haloforge.model.policy import Policy
from haloforge.store.cache import cache_folder
from haloforge.store.remote import fetch


class Source(NamedTuple):
    """What a folder is a copy of: an address in object storage, or a base's name; and its digest,
    of which a copy bears the name."""

    place: str
    digest: str


@dataclass(frozen=True)
class Places:
    """Where the folders of a policy are from, by the driver's paths."""

    sources: Mapping[Path, Source] = field(default_factory=dict)

    def here(self, path: Path) -> Path:
        """The folder on this node of what is at `path` on the driver's. Raises InputError where
        this node cannot have it."""
        source = self.sources.get(path)
        if source is None or path.is_dir():
            return path
        if "://" in source.place:
            return fetch(source.place, cache_folder() / "models" / source.digest)
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
        sources[policy.adapter] = Source(policy.address or str(policy.adapter), policy.digest)
    return Places(sources)


def base_on_this_node(base: Base) -> Base:
    """`base` with the folder that this node has of it."""
    places = Places({base.path: Source(base.address or base.name, base.digest)})
    return replace(base, path=places.here(base.path))


def on_this_node(policy: Policy) -> Policy:
    """`policy` with the folders that this node has of it."""
    adapter = policy.adapter and places_of(policy).here(policy.adapter)
    return replace(policy, base=base_on_this_node(policy.base), adapter=adapter)
