"""Where the rows of a data set are: which files train, which are its tests, at what revision."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from haloforge.data.catalogue import Entry, entries, find_entry
from haloforge.data.catalogue.entry import Origin, Split
from haloforge.data.jsonl import first_fault
from haloforge.data.sidecar import Sidecar, read_sidecar
from haloforge.data.streams import list_files, reaching
from haloforge.errors import InputError

HUB = "hf://datasets/"


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
        used_for = {"train", "test"} if self.bundled or self.test_files else {"train"}
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
        return _own(dataset, fields or {})
    if fields:
        raise InputError(f"{dataset}: its entry maps its fields; --map is for files of your own")
    if entry.test_set and not allow_test_data:
        raise _test_data(entry.name)
    if copy is None and entry.origin.bundled:
        return Source(str(entry.origin), entry.name, entry, licence=entry.licence)
    if copy is None and entry.origin.hub:
        return _on_hub(entry, entry.origin.hub, allow_test_data)
    return _stored(entry, copy or str(entry.origin.path), allow_test_data, _is_entry(dataset))


def _is_entry(dataset: str) -> bool:
    return Path(dataset).suffix in (".yaml", ".yml")


def _test_data(name: str) -> InputError:
    return InputError(
        f"{name}: test data, from which nobody trains by mistake; --allow-test-data takes it"
    )


def _on_hub(entry: Entry, hub: str, allow_test_data: bool) -> Source:
    revision = entry.origin.revision or _newest(hub)
    base = f"{HUB}{hub}@{revision}"
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


def _newest(hub: str) -> str:
    """The commit in full of what is newest on the hub."""
    from huggingface_hub import HfApi

    with reaching(f"{HUB}{hub}"):
        return str(HfApi().dataset_info(hub).sha)


def _stored(entry: Entry, location: str, allow_test_data: bool, strict: bool) -> Source:
    location = _pinned(location)
    found = list_files(location)
    base = _base(location, found)
    files, tests = _chosen(entry, found, base, allow_test_data, whole=False)
    return Source(
        origin=location,
        label=entry.name,
        entry=entry,
        strict=strict,
        files=files,
        test_files=tests,
        base=base,
        revision=_revision(location),
        licence=entry.licence,
        parents=_parents(files),
        allow_test_data=allow_test_data,
    )


def _own(dataset: str, fields: Mapping[str, str]) -> Source:
    location = _pinned(dataset)
    try:
        files = tuple(list_files(location))
    except InputError as error:
        near = get_close_matches(dataset, entries(), 1)
        hint = f"; did you mean '{near[0]}' of the catalogue?" if near else ""
        raise InputError(f"{error}{hint}") from None
    return Source(
        origin=location,
        label="",
        entry=_mapped(location, fields) if fields else None,
        strict=True,
        files=files,
        base=_base(location, list(files)),
        revision=_revision(location),
        parents=_parents(files),
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


def _pinned(location: str) -> str:
    """`location`; an address on the hub with the commit that is newest there, if it names none."""
    owner, _, rest = location.removeprefix(HUB).partition("/")
    name, _, within = rest.partition("/")
    if not location.startswith(HUB) or "@" in name or not name:
        return location
    return f"{HUB}{owner}/{name}@{_newest(f'{owner}/{name}')}/{within}".rstrip("/")


def _revision(location: str) -> str | None:
    found = re.match(f"{HUB}[^@]*@([0-9a-f]{{40}})", location)
    return found[1] if found else None


def _base(location: str, files: list[str]) -> str:
    if files == [location]:
        return location.removesuffix(PurePosixPath(location).name)
    return f"{location.rstrip('/')}/"


def _parents(files: tuple[str, ...]) -> tuple[Sidecar, ...]:
    found = (read_sidecar(Path(file)) for file in files if "://" not in file)
    return tuple(sidecar for sidecar in found if sidecar is not None)


def _chosen(
    entry: Entry, files: list[str], base: str, allow_test_data: bool, whole: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that train, and those of the set's own tests."""
    splits = _splits(entry, [file.removeprefix(base) for file in files], whole)
    used_for = [entry.splits[split].used_for if split else None for split in splits]

    def of(part: str | None) -> tuple[str, ...]:
        return tuple(file for file, used in zip(files, used_for, strict=True) if used == part)

    tests = of("test")
    # A hub has files besides those of the splits; all that a copy of no split has may be wanted.
    rest = () if whole else of(None)
    files_of_train = of("train") or rest or of("validation")
    if files_of_train:
        # Tests that models are compared by stay out of whatever is tuned.
        return files_of_train, () if "benchmark" in entry.uses else tests
    if not tests:
        wanted = ", ".join(split.files or "any" for split in entry.splits.values())
        raise InputError(f"{base.rstrip('/')}: holds none of the set's files ({wanted})")
    if not allow_test_data:
        raise _test_data(f"{entry.name} ({', '.join(file.removeprefix(base) for file in tests)})")
    return tests, ()


def _splits(entry: Entry, names: list[str], whole: bool) -> list[str | None]:
    """The split of each file, by the set's patterns; in a copy that is made up otherwise, by the
    pattern's last part, or by the split's name as a word of the file's."""

    def by_pattern(name: str, pattern: str, split: str) -> bool:
        return fnmatch(name, pattern)

    def by_end(name: str, pattern: str, split: str) -> bool:
        return fnmatch(PurePosixPath(name).name, PurePosixPath(pattern).name)

    def by_word(name: str, pattern: str, split: str) -> bool:
        return re.search(rf"(?<![a-z]){split}(?![a-z])", name.lower()) is not None

    patterns = {name: split.files for name, split in entry.splits.items() if split.files}
    rest = next((name for name, split in entry.splits.items() if split.files is None), None)
    found: list[str | None] = []
    for fits in (by_pattern,) if whole else (by_pattern, by_end, by_word):
        found = [
            next((split for split, each in patterns.items() if fits(name, each, split)), None)
            for name in names
        ]
        if any(found):
            break
    return [split or rest for split in found]
