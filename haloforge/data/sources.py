"""Where the rows of a data set are: which files train, which are its tests, at what revision."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from haloforge.data.catalogue import Entry, entries, entries_on_hub, find_entry
from haloforge.data.catalogue.entry import Origin, Split
from haloforge.data.jsonl import first_fault
from haloforge.data.sidecar import Sidecar, licence_on_hub, read_sidecar
from haloforge.data.streams import list_files, read_file
from haloforge.data.suites.mbpp import TEST_IDS
from haloforge.errors import InputError
from haloforge.store.storage import HUB, apart, commit_of, located, on_hub


@dataclass(frozen=True)
class Source:
    """Files to prepare, and how their rows are read.

    `entry` reads them; None is for rows of haloforge's own form. Where `strict`, a row that does
    not fit stops everything. `test_files` are the set's own test split, where that is nobody's
    benchmark. `origin` is where all is, of which `base` comes before the names of files, and
    `label` is what the set is called in each row's `source`. `revision` is a commit on the hub.
    A bundled set has no files.
    """

    origin: str
    label: str
    entry: Entry | None = None
    strict: bool = False
    files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    base: str = ""
    revision: str | None = None
    licence: str | None = None
    parents: tuple[Sidecar, ...] = field(default=(), repr=False)
    allow_test_data: bool = False

    @property
    def bundled(self) -> bool:
        return not self.files

    @property
    def rows(self) -> int | None:
        """How many rows there are to read, where somebody counted them; a copy may have others."""
        if self.entry is None or not (self.bundled or self.revision):
            return None
        tests = self.bundled or self.test_files or self.allow_test_data
        used_for = {"train", "test"} if tests else {"train"}
        splits = [split for split in self.entry.splits.values() if split.used_for in used_for]
        return sum(split.rows or 0 for split in splits) or None

    def named(self, place: str) -> str:
        """`place` as each row tells it: the set, the file there, and the row."""
        within = place.removeprefix(self.base)
        return f"{self.label}, {within}" if self.label else within


def find_source(
    dataset: str,
    copy: str | None = None,
    fields: Mapping[str, str] | None = None,
    allow_test_data: bool = False,
) -> Source:
    """The source that `dataset` names: a set of the catalogue or a user's own entry, of which
    `copy` is another place; or a file or folder of rows, whose columns `fields` maps.

    Raises InputError for what is not there and for test data, unless those are allowed, InfraError
    where a hub or a store does not answer.
    """
    # A name with --from is one of the catalogue, even where a folder is called so.
    is_path = copy is None and Path(dataset).exists() and not _is_entry(dataset)
    entry = None if is_path else find_entry(dataset)
    if entry is None:
        if copy is not None:
            raise InputError(f"{dataset}: not in the catalogue, so --from has no meaning for it")
        return _own(dataset, fields or {}, allow_test_data)
    if fields:
        raise InputError(f"{dataset}: its entry maps its fields; --map is for files of your own")
    if entry.test_set and not allow_test_data:
        raise _test_data(entry.name)
    if copy is None and entry.origin.bundled:
        return Source(str(entry.origin), entry.name, entry, licence=entry.licence)
    if copy is None and entry.origin.hub:
        return _on_hub(entry, entry.origin.hub, allow_test_data)
    stored = _stored(entry, copy or str(entry.origin.path), allow_test_data, copy is not None)
    return replace(stored, strict=_is_entry(dataset))


def _is_entry(dataset: str) -> bool:
    return Path(dataset).suffix in (".yaml", ".yml")


def _test_data(name: str) -> InputError:
    return InputError(
        f"{name}: test data, from which nobody trains by mistake; --allow-test-data takes it"
    )


def _on_hub(entry: Entry, hub: str, allow_test_data: bool) -> Source:
    at = f"@{entry.origin.revision}" if entry.origin.revision else ""
    base = located(f"{HUB}{hub}{at}")
    revision = commit_of(base)
    files, tests = _chosen(entry, list_files(base), f"{base}/", allow_test_data, whole=True)
    return Source(
        origin=f"{HUB}{hub}",
        label=f"{hub}@{revision}",
        entry=entry,
        files=files,
        test_files=tests,
        base=f"{base}/",
        revision=revision,
        licence=entry.licence,
        allow_test_data=allow_test_data,
    )


def _stored(entry: Entry, location: str, allow_test_data: bool, copied: bool) -> Source:
    location = located(location)
    found = list_files(location)
    base = _base(location, found)
    folders = _last_folders(base) if copied else ""
    files, tests = _chosen(entry, found, base, allow_test_data, whole=False, folders=folders)
    return Source(
        origin=location,
        label=entry.name,
        entry=entry,
        files=files,
        test_files=tests,
        base=base,
        revision=commit_of(location),
        licence=entry.licence,
        parents=_parents(files, allow_test_data),
        allow_test_data=allow_test_data,
    )


def _own(dataset: str, fields: Mapping[str, str], allow_test_data: bool) -> Source:
    if not allow_test_data:
        _check_hub(dataset)
    location = located(dataset)
    try:
        files = tuple(list_files(location))
    except InputError as error:
        near = get_close_matches(dataset, entries(), 1)
        hint = f"; did you mean '{near[0]}' of the catalogue?" if near else ""
        raise InputError(f"{error}{hint}") from None
    if not allow_test_data:
        _check_hub(*files)
        _check_rows(files)
    parents = _parents(files, allow_test_data)
    licences = {parent.licence for parent in parents} if len(parents) == len(files) else set()
    licences = licences or {licence_on_hub(file) for file in files}
    return Source(
        origin=location,
        label="",
        entry=_mapped(location, fields) if fields else None,
        strict=True,
        files=files,
        base=_base(location, list(files)),
        revision=commit_of(location),
        licence=licences.pop() if len(licences) == 1 else None,
        parents=parents,
        allow_test_data=allow_test_data,
    )


def _mapped(location: str, fields: Mapping[str, str]) -> Entry:
    """An entry for a file whose columns the user names, by the adapter that has those fields."""
    if fields.keys() & {"answer", "score"}:
        adapter = "instruction"
    else:
        adapter = "chat" if fields.keys() <= {"messages", "text"} else "problem"
    try:
        return Entry(
            name="own",
            origin=Origin(path=location),
            splits={"rows": Split(used_for="train")},
            licence="",
            languages=[],
            uses=["sft"] if adapter != "problem" else ["problems", "sft"],
            adapter=adapter,
            fields=dict(fields),
        )
    except ValidationError as error:
        raise InputError(f"--map: {first_fault(error)}") from None


def _check_hub(*addresses: str) -> None:
    """Raises InputError for an address, of a file or a folder, that the catalogue knows as tests:
    of a set that is a benchmark, or of the split of a set that is used for them."""
    for address in addresses:
        hub, name = on_hub(address) or ("", "")
        for entry in entries_on_hub(hub) if hub else ():
            if entry.test_set or "test" in _used_for(entry, [name], whole=False, folders=""):
                raise _test_data(f"{entry.name} ({address})" if name else entry.name)


def _check_rows(files: tuple[str, ...]) -> None:
    """Raises InputError for a file whose first row is a task of HumanEval, or of MBPP's tests, by
    its id. Looked into are some files only, for to open each in a store takes a while."""
    for file in [file for file in files if on_hub(file) is None][:_LOOKED_INTO]:
        try:
            _, text = next(read_file(file), ("", "{}"))
            row = json.loads(text)
        except (InputError, RecursionError, ValueError):
            continue  # told, with its place, where rows are read
        if isinstance(row, dict) and _is_task(row):
            raise _test_data(file)


def _is_task(row: dict[str, Any]) -> bool:
    names = [_TASK.fullmatch(value) for value in row.values() if isinstance(value, str)]
    if any(name and (name[1] is None or int(name[1]) in TEST_IDS) for name in names):
        return True
    return "test_list" in row and row.get("task_id") in TEST_IDS


_TASK = re.compile(r"HumanEval/\d+|mbpp/(\d+)", re.IGNORECASE)
_LOOKED_INTO = 20


def _base(location: str, files: list[str]) -> str:
    place, _ = apart(location)
    if files == [location]:
        return place.removesuffix(PurePosixPath(place).name)
    return f"{place}/"


def _parents(files: tuple[str, ...], allow_test_data: bool) -> tuple[Sidecar, ...]:
    """The sidecars beside `files`, which are to train: what was held out once stays held out, also
    where something else was made of it."""
    found = {file: read_sidecar(file) for file in files}
    for file, sidecar in found.items():
        if sidecar is not None and _held_out(sidecar) and not allow_test_data:
            raise _test_data(file)
    return tuple(sidecar for sidecar in found.values() if sidecar is not None)


def _held_out(sidecar: Sidecar) -> bool:
    return sidecar.filters.get("part") == "test" or any(map(_held_out, sidecar.parents))


def _last_folders(base: str) -> str:
    """The last folders of a location, which may say what split is there."""
    place = base if "://" in base else str(Path(base).absolute())
    return "/".join(PurePosixPath(place).parts[-2:])


def _chosen(
    entry: Entry,
    files: list[str],
    base: str,
    allow_test_data: bool,
    whole: bool,
    folders: str = "",
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that train, and those of the set's own tests."""
    used_for = _used_for(entry, [file.removeprefix(base) for file in files], whole, folders)

    def of(part: str | None) -> tuple[str, ...]:
        return tuple(file for file, used in zip(files, used_for, strict=True) if used == part)

    tests = of("test")
    # A hub has files besides those of the splits; all that a copy of no split has may be wanted.
    rest = () if whole else of(None)
    files_of_train = of("train") or rest or of("validation")
    if files_of_train and "benchmark" in entry.uses:
        # Tests that models are compared by stay out of whatever is tuned.
        return (*files_of_train, *(tests if allow_test_data else ())), ()
    if files_of_train:
        return files_of_train, tests
    if not tests:
        wanted = ", ".join(split.files or "any" for split in entry.splits.values())
        raise InputError(f"{base.rstrip('/')}: holds none of the set's files ({wanted})")
    if not allow_test_data:
        raise _test_data(f"{entry.name} ({', '.join(file.removeprefix(base) for file in tests)})")
    return tests, ()


def _used_for(entry: Entry, names: list[str], whole: bool, folders: str) -> list[str | None]:
    """What each file is used for: by the set's patterns; in a copy that is made up otherwise, by a
    pattern's last part, or by the split's name as a word of the file's name, else of its folders,
    the inner ones first; where no file says, by the `folders` that the copy is in. Of a split that
    has files which fit better others are nothing: they are of another config of the set."""
    patterns = {name: split.files for name, split in entry.splits.items() if split.files}
    rest = next((name for name, split in entry.splits.items() if split.files is None), None)

    def fit(name: str) -> tuple[int, str] | None:
        path = PurePosixPath(name)
        for split, pattern in patterns.items():
            if fnmatch(name, pattern):
                return 0, split
        if whole:
            return None
        for split, pattern in patterns.items():
            if fnmatch(path.name, PurePosixPath(pattern).name):
                return 1, split
        return by_word(path)

    def by_word(path: PurePosixPath) -> tuple[int, str] | None:
        for part in reversed(path.parts):
            for split in patterns:
                if re.search(rf"(?<![a-z])(?:{_WORDS.get(split, split)})(?![a-z])", part.lower()):
                    return 2, split
        return None

    fits = [fit(name) for name in names]
    if not any(fits):
        fits = [by_word(PurePosixPath(folders))] * len(names)
    best = {split: rank for rank, split in sorted(filter(None, fits), reverse=True)}
    return [
        (entry.splits[rest].used_for if rest else None)
        if found is None
        else entry.splits[found[1]].used_for
        if found[0] == best[found[1]]
        else "another"
        for found in fits
    ]


_WORDS = dict.fromkeys(("valid", "validation"), "valid|validation")
"""What a split's name is in copies, where that differs."""
