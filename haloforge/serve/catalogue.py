"""What clients can name: bases, adapters, and those that a RAFT run adds to its folder."""

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from haloforge.errors import HaloforgeError, InputError
from haloforge.model.bases import Base, check_name, resolve_base
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

    @property
    def folder(self) -> Path:
        return Path(self.model)

    def __str__(self) -> str:
        return f"{self.name}={self.model}" if self.name else self.model


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
    there without a restart, and one that was replaced is another.

    Bases are in the memory of engines, so they are what they were when the first was looked up.
    What goes wrong later hides the one model that it is of, and is in `faults`, by its name.
    """

    def __init__(self, sources: Sequence[str], bases: Mapping[str, Policy] | None = None) -> None:
        """`bases`, by name, are what another process found, where that has been done. Raises
        InputError for a source that is none."""
        self._sources = [_source(text, check=bases is None) for text in sources]
        self._lock = threading.Lock()
        self._looked = 0.0
        self._models: dict[str, Served] = {}
        self._bases = dict(bases or {})
        self._resolved = {policy.base.name: policy.base for policy in self._bases.values()}
        self.faults: dict[str, str] = {}

    @property
    def sources(self) -> list[str]:
        """As another process, in another folder, takes them."""
        return [str(source) for source in self._sources]

    @property
    def grows(self) -> bool:
        """Whether adapters may come that are not there yet."""
        return any(_is_run(source.folder) for source in self._sources)

    def bases(self) -> dict[str, Policy]:
        """The bases of all, by name. Raises InputError, at first, for a source that is none, and
        where two models, or two bases, have one name."""
        self.models()
        return self._bases

    def models(self, now: bool = False) -> dict[str, Served]:
        """All that is there, the first source's first, then bases that are no source; `now` looks
        even if that was just done. Raises as `bases` does, at first."""
        with self._lock:
            if not self._bases:
                self._bases = self._first_bases()
            if now or time.monotonic() - self._looked >= _LOOK_S:
                self._models = self._look()
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
        if name in self.faults:
            raise InputError(f"model '{name}' cannot be served; the server's log says why")
        raise InputError(f"no model '{name}': there are {', '.join(models)}")

    def adapter(self, model_id: str) -> Policy:
        """The adapter that is called `model_id` in answers. Raises InputError where it is gone."""
        for now in (False, True):
            for served in self.models(now).values():
                if served.id == model_id:
                    return served.policy
        raise InputError(f"the adapter of '{model_id}' is no longer there")

    def _first_bases(self) -> dict[str, Policy]:
        """Raises what is wrong with any source."""
        found = [served for source in self._sources for served in self._of(source)]
        if self.faults and not found:
            raise InputError(next(iter(self.faults.values())))
        given = [served for served in found if served.policy.adapter is None]
        bases = {served.name: served.policy for served in given}
        for served in found:
            base = served.policy.base
            name = self._base_name(base, bases)
            known = bases.setdefault(name, self._policy(base.name))
            if known.digest != base.digest:
                raise InputError(
                    f"model '{served.name}': its base is not the '{name}' of the others"
                )
        names = [served.name for served in found]
        for name in names:
            if names.count(name) > 1 or (name in bases and name not in {s.name for s in given}):
                raise InputError(
                    f"two models are called '{name}': write NAME=MODEL for one of them"
                )
        return bases

    def _look(self) -> dict[str, Served]:
        """All that is there now. Of two that come to have one name the first source's is."""
        models: dict[str, Served] = {}
        self.faults = {}
        for source in self._sources:
            try:
                found = list(self._of(source))
            except (HaloforgeError, OSError) as error:
                self.faults[str(source)] = str(error)
                continue
            for served in found:
                if served.base not in self._bases:
                    self.faults[served.name] = f"its base '{served.base}' is not served"
                elif models.setdefault(served.name, served) is not served:
                    self.faults[f"{source}: {served.name}"] = "another model has this name"
        for name, policy in self._bases.items():
            models.setdefault(name, Served(name, name, name, policy))
        return models

    def _of(self, source: Source) -> Iterator[Served]:
        if not _is_run(source.folder):
            yield self._one(source.name or _usual_name(source.model), None, source.model)
            return
        before = f"{source.name}/" if source.name else ""
        cycles: dict[int, Served] = {}
        for config in sorted(source.folder.glob("*/adapter_config.json")):
            adapter = config.parent
            called = before + adapter.resolve().name if adapter.is_symlink() else None
            name = before + adapter.name
            try:
                served = self._one(name, called, str(adapter))
            except (HaloforgeError, OSError) as error:  # of one adapter: the others are served
                self.faults[name] = str(error)
                continue
            yield served
            if match := _CYCLE.fullmatch(adapter.name):
                cycles[int(match.group(1))] = served
        if cycles:
            newest = cycles[max(cycles)]
            yield Served(before + LATEST, newest.name, newest.base, newest.policy)

    def _one(self, name: str, called: str | None, model: str) -> Served:
        policy = self._policy(model)
        if policy.adapter is None:
            return Served(name, name, name, policy)
        return Served(name, called or name, self._base_name(policy.base, self._bases), policy)

    def _policy(self, model: str) -> Policy:
        return resolve_policy(model, self._base)

    def _base(self, name: str) -> Base:
        """Resolved once: the hub would be asked each time, and may have another one by then."""
        if name not in self._resolved:
            self._resolved[name] = resolve_base(name)
        return self._resolved[name]

    def _base_name(self, base: Base, known: Mapping[str, Policy]) -> str:
        """The name that it was given, or its usual one."""
        given = (name for name, policy in known.items() if policy.digest == base.digest)
        return next(given, None) or _usual_name(base.name)


def _source(text: str, check: bool) -> Source:
    name, equals, model = text.partition("=")
    if not equals or "/" in name:
        name, model = "", text
    elif _NAME.fullmatch(name) is None:
        raise InputError(f"model '{text}': '{name}' is no name; expected letters, digits, '._/-'")
    folder = Path(model).expanduser()
    if "://" not in model and folder.is_dir():
        model = str(folder.absolute())  # of where this command was given
    if check and not _is_run(Path(model)):
        check_name(model)
        if folder.is_dir() and (folder / "run.json").exists():
            raise InputError(f"{model}: no cycle of this run has been trained yet")
    return Source(name or None, model)


def _is_run(folder: Path) -> bool:
    """Whether it holds adapters and is no model itself."""
    own = ("adapter_config.json", "config.json")
    return (
        folder.is_dir()
        and not any((folder / name).is_file() for name in own)
        and any(folder.glob("*/adapter_config.json"))
    )


def _usual_name(model: str) -> str:
    """A folder's or address's last part; a Hugging Face id as it is."""
    is_folder = "://" in model or Path(model).is_absolute()
    name = Path(model).name if is_folder else model
    if _NAME.fullmatch(name) is None:
        raise InputError(f"model '{model}': give it a name, as in NAME={model}")
    return name
