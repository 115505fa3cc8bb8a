"""What clients can name: bases, adapters, and those that a RAFT run adds to its folder."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from haloforge.errors import HaloforgeError, InputError
from haloforge.model.bases import Base, check_name
from haloforge.model.policy import Policy, resolve_policy

LATEST = "latest"
_LOOK_S = 2.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_CYCLE = re.compile(r"cycle_(\d+)_final")
_SHOWN_DIGITS = 12


class Source(NamedTuple):
    """What the user named, a model or a run's folder, and the name he gave it, if any."""

    name: str | None
    model: str


@dataclass(frozen=True)
class Served:
    """A model by the name that clients give. `called` is its own name, where `name` leads to
    whichever is the newest or the best; `base` is the name of its base."""

    name: str
    called: str
    base: str
    policy: Policy

    @property
    def id(self) -> str:
        """What the model is called in answers, and to Ray Serve: of an adapter the base's name, its
        own and the beginning of its digest, so that other weights have another."""
        if self.policy.adapter is None:
            return self.base
        return f"{self.base}:{self.called}:{self.policy.digest[:_SHOWN_DIGITS]}"


class Catalogue:
    """The models of `sources`, looked up anew every two seconds: an adapter that a run has added is
    there without a restart, and one that was replaced is another."""

    def __init__(self, sources: Sequence[str]) -> None:
        """Raises InputError for a source that is none."""
        self.sources = list(sources)
        self._sources = [_source(text) for text in sources]
        self._lock = threading.Lock()
        self._looked = 0.0
        self._models: dict[str, Served] = {}
        self._bases: dict[str, Served] = {}
        self._faults: dict[str, str] = {}

    @property
    def grows(self) -> bool:
        """Whether adapters may come that are not there yet."""
        return any(_is_run(Path(source.model)) for source in self._sources)

    def models(self, now: bool = False) -> dict[str, Served]:
        """All that is there, the first source's first; `now` looks even if that was just done.

        Of a source that is gone only the base is left. Raises InputError where two models have the
        same name, or a source was never there.
        """
        with self._lock:
            if now or time.monotonic() - self._looked >= _LOOK_S:
                self._models, self._faults = self._look()
                self._looked = time.monotonic()
            return self._models

    def find(self, name: str | None) -> Served:
        """The model that a client names; without a name the first. Raises InputError, saying what
        there is."""
        models = self.models()
        if name is None:
            return next(iter(models.values()))
        for now in (False, True):
            models = self.models(now)
            by_id = {served.id: served for served in models.values()}
            if found := models.get(name) or by_id.get(name):
                return found
        fault = self._faults.get(name)
        raise InputError(fault or f"no model '{name}': there are {', '.join(models)}")

    def adapter(self, model_id: str) -> Policy:
        """The adapter that is called `model_id` in answers. Raises InputError where it is gone."""
        for now in (False, True):
            for served in self.models(now).values():
                if served.id == model_id:
                    return served.policy
        raise InputError(f"the adapter of '{model_id}' is no longer there")

    def bases(self) -> dict[str, Base]:
        """The bases of all, by name. Raises InputError where two that differ have one name."""
        bases: dict[str, Base] = {}
        for served in self.models().values():
            known = bases.setdefault(served.base, served.policy.base)
            if known.digest != served.policy.base.digest:
                raise InputError(
                    f"model '{served.name}': its base is not the '{served.base}' of the others"
                )
        return bases

    def _look(self) -> tuple[dict[str, Served], dict[str, str]]:
        models: dict[str, Served] = {}
        faults: dict[str, str] = {}
        named = {s.policy.base.digest: s.base for s in self._given_bases()}
        for source in self._sources:
            try:
                found = list(_served(source, named, faults))
            except HaloforgeError:
                if not self._models:
                    raise
                continue  # it was there: its base is in the engines' memory, and stays
            for served in found:
                if models.setdefault(served.name, served) is not served:
                    raise InputError(
                        f"two models are called '{served.name}': write NAME=MODEL for one of them"
                    )
        for served in models.values():
            alone = Policy(served.base, served.policy.base, None, served.policy.base.digest)
            base = Served(served.base, served.base, served.base, alone)
            self._bases.setdefault(served.base, base)
        gone = {name: base for name, base in self._bases.items() if name not in models}
        return {**models, **gone}, faults

    def _given_bases(self) -> Iterator[Served]:
        """Those that were given a name of their own, by which their adapters know them too."""
        for source in self._sources:
            if source.name is not None and not _is_run(Path(source.model)):
                policy = resolve_policy(source.model)
                if policy.adapter is None:
                    yield Served(source.name, source.name, source.name, policy)


def _source(text: str) -> Source:
    name, equals, model = text.partition("=")
    if not equals or "/" in name:
        name, model = "", text
    elif _NAME.fullmatch(name) is None:
        raise InputError(f"model '{text}': '{name}' is no name; expected letters, digits, '._/-'")
    if not _is_run(Path(model).expanduser()):
        check_name(model)
    return Source(name or None, model)


def _is_run(folder: Path) -> bool:
    """Whether it holds adapters and is no model itself."""
    own = ("adapter_config.json", "config.json")
    return (
        folder.is_dir()
        and not any((folder / name).is_file() for name in own)
        and any(folder.glob("*/adapter_config.json"))
    )


def _served(source: Source, named: dict[str, str], faults: dict[str, str]) -> Iterator[Served]:
    folder = Path(source.model).expanduser()
    if not _is_run(folder):
        yield _one(source.name or _usual_name(source.model), None, source.model, named)
        return
    before = f"{source.name}/" if source.name else ""
    cycles: dict[int, Served] = {}
    for config in sorted(folder.glob("*/adapter_config.json")):
        adapter = config.parent
        called = before + adapter.resolve().name if adapter.is_symlink() else None
        name = before + adapter.name
        try:
            served = _one(name, called, str(adapter), named)
        except HaloforgeError as error:  # of one adapter: the others are served
            faults[name] = str(error)
            continue
        yield served
        if match := _CYCLE.fullmatch(adapter.name):
            cycles[int(match.group(1))] = served
    if cycles:
        newest = cycles[max(cycles)]
        yield Served(before + LATEST, newest.name, newest.base, newest.policy)


def _one(name: str, called: str | None, model: str, named: dict[str, str]) -> Served:
    policy = resolve_policy(model)
    if policy.adapter is None:
        return Served(name, name, name, policy)
    base = named.get(policy.base.digest) or _usual_name(policy.base.name)
    return Served(name, called or name, base, policy)


def _usual_name(model: str) -> str:
    """A folder's or address's last part; a Hugging Face id as it is."""
    is_folder = "://" in model or Path(model).expanduser().is_dir()
    name = Path(model).expanduser().name if is_folder else model
    if _NAME.fullmatch(name) is None:
        raise InputError(f"model '{model}': give it a name, as in NAME={model}")
    return name
