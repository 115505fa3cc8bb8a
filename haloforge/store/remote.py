"""Run folders in object storage: what counts is there, the driver works on a copy of this machine.

Each file goes to the storage as soon as it is whole here, in the same order: so a manifest comes
after the shards that it names there too, and no rename is needed, which object storage has not. A
folder that must be whole, as an adapter, bears the mark PARTIAL there until all of it has arrived.
A run that is taken up begins by making the copy like the storage: what did not get there does not
count.

One driver at a time: see `lease.py`.
"""

import json
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pyarrow.fs as pafs

from haloforge.errors import InputError
from haloforge.schema import digest
from haloforge.store.cache import cache_folder, making
from haloforge.store.lease import LEASE, Lease
from haloforge.store.storage import apart, filesystem, reaching

PARTIAL = ".partial"
_INDEX = ".remote.json"
_LOCAL = (_INDEX, ".lock")
_AT_ONCE = 16  # files on their way
_Stamp = list[int]  # bytes, and when the storage wrote it, in nanoseconds

_remotes: dict[Path, "Remote"] = {}


def run_folder(place: str | Path) -> Path:
    """The folder to work in for a run at `place`: itself, or of an address in object storage the
    copy on this machine, like what is stored there; this process has the run from then on.

    Raises InputError where another driver is at work there, InfraError where the storage does not
    answer.
    """
    if "://" not in str(place):
        return Path(place)
    uri, options = apart(str(place))
    folder = (cache_folder() / "runs" / digest(uri, options)).resolve()
    if folder not in _remotes:
        remote = Remote(f"{uri}{options}", folder)
        remote.lease.take()
        remote.pull()
        _remotes[folder] = remote
    return folder


def saved(path: Path) -> None:
    """`path`, a file, is whole now."""
    if remote := _remote_of(path):
        remote.push(path)


def removed(path: Path) -> None:
    """`path`, a file or a folder, is gone now."""
    if remote := _remote_of(path):
        remote.remove(path)


def renamed(path: Path, target: Path) -> None:
    """`path`, a file or a folder, is `target` now, in the same run or not."""
    folder_saved(target) if target.is_dir() else saved(target)
    removed(path)


def folder_saved(folder: Path) -> None:
    """All in `folder` is whole now, and counts together."""
    if remote := _remote_of(folder):
        remote.push_folder(folder)


def set_stored_aside(folder: Path) -> str | None:
    """Where what is stored of the run `folder` is now; None where that is no copy of one."""
    remote = _remotes.get(folder.resolve())
    return remote.set_aside() if remote else None


def checkpoints_of(path: Path) -> str | None:
    """Where checkpoints of a training in `path` are stored, for which no copy is needed."""
    remote = _remote_of(path)
    return remote.beside(path, "checkpoints") if remote else None


def address_of(path: Path) -> str | None:
    """Where `path` is stored, if it is in a copy of a run in object storage."""
    remote = _remote_of(path)
    return remote.address(path) if remote else None


def tag_of(path: Path) -> str:
    """What in names of new files at `path` keeps drivers apart: nothing where only one can write,
    as the lock of a folder sees to."""
    remote = _remote_of(path)
    return f"-{remote.lease.tag}" if remote else ""


def shown(path: str | Path) -> str:
    """`path` as a user knows it: where it is stored."""
    return address_of(Path(path)) or str(path)


def _remote_of(path: Path) -> "Remote | None":
    if not _remotes:
        return None
    whole = path.resolve() if not path.is_symlink() else path.parent.resolve() / path.name
    return next((_remotes[each] for each in (whole, *whole.parents) if each in _remotes), None)


class Remote:
    """A folder in object storage, `uri`, and its copy `folder` on this machine."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self._place, self._options = apart(uri)
        self._store, root = filesystem(uri)
        self._root = root.rstrip("/")
        self._folder = folder
        self._stamps: dict[str, _Stamp] = {}
        self._turn = threading.RLock()
        self.lease = Lease(self.uri, self._store, self._root)

    def address(self, path: Path) -> str:
        """The address of what is stored of `path`."""
        return self._below(self._place, path)

    def beside(self, path: Path, what: str) -> str:
        """The address of a folder for `path` in another beside that of the run."""
        return self._below(f"{self._place}.{what}", path)

    def _below(self, place: str, path: Path) -> str:
        name = self._name(path)
        return f"{place}{'' if name == '.' else f'/{name}'}{self._options}"

    def push(self, path: Path) -> None:
        """Stores the file `path`: the old one is there, or the new one, never a part.

        Raises InfraError where another driver has taken the run over.
        """
        name = self._name(path)
        self.lease.check(at_once=path.suffix == ".json")  # which makes other files count
        with self._turn, self._reached("written"):
            pafs.copy_files(
                str(path),
                self._at(name),
                source_filesystem=pafs.LocalFileSystem(),
                destination_filesystem=self._store,
            )
            info = self._store.get_file_info(self._at(name))
            self._stamps[name] = [info.size, info.mtime_ns]
            self._keep_stamps()

    def push_folder(self, folder: Path) -> None:
        """Stores all in `folder`, which counts when the last of it has arrived."""
        self._mark(name := self._name(folder))
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in _LOCAL:
                self.push(path)
        self._delete([f"{name}/{PARTIAL}"])

    def remove(self, path: Path) -> None:
        """Deletes what is stored of the file or folder `path`. A folder does not count from the
        first moment on."""
        name = self._name(path)
        with self._turn:
            inside = [each for each in self._listed() if each.startswith(f"{name}/")]
            if inside:
                self._mark(name)
            self._delete([*(each for each in inside if not _is_mark(each)), name])
            if inside:
                self._delete([f"{name}/{PARTIAL}"])

    def pull(self) -> None:
        """Makes the copy like what is stored, and clears there what does not count."""
        listed = self._listed()
        torn = {name.rpartition("/")[0] for name in listed if _is_mark(name)}
        broken = [name for name in listed if any(_is_in(name, folder) for folder in torn)]
        # The marks last: until then the rest must not count.
        self._delete(sorted(broken, key=_is_mark))
        counting = {name: stamp for name, stamp in listed.items() if name not in broken}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._read_stamps()
        for path in sorted(self._folder.rglob("*"), reverse=True):
            name = self._name(path)
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):  # it holds something
                    path.rmdir()
            elif name not in counting and name not in _LOCAL:
                path.unlink()
        missing = [name for name, stamp in counting.items() if not self._is_like(name, stamp)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._fetch, missing))
        self._stamps = counting
        self._keep_stamps()

    def set_aside(self) -> str:
        """Copies what is stored to the first free of `<uri>.old-1` and so on, and begins anew with
        nothing; the address of the copy."""
        number = 1
        while self._listed(f"{self._root}.old-{number}"):
            number += 1
        aside = f"{self._root}.old-{number}"
        with self._turn:
            for name in self._listed():
                with self._reached("written"):
                    self._store.copy_file(self._at(name), f"{aside}/{name}")
            self._mark("")
            self.pull()
        return f"{self._place}.old-{number}{self._options}"

    def _name(self, path: Path) -> str:
        whole = path if path.is_symlink() else path.absolute()
        return whole.relative_to(self._folder).as_posix()

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _reached(self, done: str = "read") -> AbstractContextManager[None]:
        return reaching(self.uri, done)

    def _listed(self, root: str | None = None) -> dict[str, _Stamp]:
        root = root or self._root
        with self._reached():
            found = self._store.get_file_info(
                pafs.FileSelector(root, recursive=True, allow_not_found=True)
            )
        return {
            each.path.removeprefix(f"{root}/"): [each.size, each.mtime_ns]
            for each in found
            if each.type == pafs.FileType.File and each.base_name != LEASE
        }

    def _mark(self, folder: str) -> None:
        """From now on nothing in `folder` counts, until the mark is deleted."""
        self.lease.check(at_once=True)
        at = self._at(f"{folder}/{PARTIAL}".lstrip("/"))
        with self._reached("written"), self._store.open_output_stream(at):
            pass

    def _delete(self, names: Iterable[str]) -> None:
        self.lease.check(at_once=True)
        with self._turn, self._reached("written"):
            for name in names:
                self.lease.check(at_once=False)
                with suppress(FileNotFoundError):
                    self._store.delete_file(self._at(name))
                self._stamps.pop(name, None)

    def _fetch(self, name: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with self._reached():
            pafs.copy_files(
                self._at(name),
                str(partial),
                source_filesystem=self._store,
                destination_filesystem=pafs.LocalFileSystem(),
            )
        partial.replace(path)

    def _is_like(self, name: str, stamp: _Stamp) -> bool:
        path = self._folder / name
        known = self._stamps.get(name) == stamp
        return known and path.is_file() and path.stat().st_size == stamp[0]

    def _read_stamps(self) -> None:
        try:
            self._stamps = dict(json.loads((self._folder / _INDEX).read_text()))
        except (OSError, ValueError, TypeError):
            self._stamps = {}

    def _keep_stamps(self) -> None:
        partial = self._folder / f"{_INDEX}.tmp"
        partial.write_text(json.dumps(self._stamps))
        partial.replace(self._folder / _INDEX)


def _is_mark(name: str) -> bool:
    return name.rpartition("/")[2] == PARTIAL


def _is_in(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def fetched(address: str) -> Path:
    """The folder at `address` as it is now, in this machine's cache. Raises InputError where
    nothing is there, or only a part."""
    store, root = filesystem(address)
    with reaching(address):
        found = store.get_file_info(pafs.FileSelector(root, recursive=True))
    files = [each for each in found if each.type == pafs.FileType.File]
    if not files:
        raise InputError(f"{address}: holds no file")
    if any(each.base_name == PARTIAL for each in files):
        raise InputError(
            f"{address}: not whole, its writing was stopped; the run that does goes on"
        )
    now = sorted((each.path, each.size, each.mtime_ns) for each in files)
    return fetch(address, cache_folder() / "models" / digest(address, now))


def fetch(address: str, folder: Path) -> Path:
    """`folder`, to which the one at `address` was copied; it appears whole, once."""
    store, root = filesystem(address)
    with making(folder) as partial:
        if not folder.is_dir():
            partial.mkdir()
            with reaching(address):
                pafs.copy_files(
                    root,
                    str(partial),
                    source_filesystem=store,
                    destination_filesystem=pafs.LocalFileSystem(),
                )
            partial.rename(folder)
    return folder
