"""Where files are: on this machine, in object storage or on the hub, and how they are named.

A file here is named by its path, to the letter. In an address s3:// or gs:// some characters mean
something else or may not stand, so there each is quoted (`%23` is `#`); after the path follow
options (`?endpoint_override=...`).
"""

import csv
import gzip
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from haloforge.errors import InfraError, InputError

HUB = "hf://datasets/"
_ON_HUB = re.compile(rf"{HUB}([^/@]+/[^/@]+)(?:@(refs/(?:convert|pr)/[^/]+|[^/]+))?((?:/.*)?)")
_COMMIT = re.compile("[0-9a-f]{40}")
_STORES = ("s3://", "gs://")


_KEYS_IN = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
_SECRET = re.compile("key|secret|token|passw|credential|signature", re.IGNORECASE)


def check_address(location: str) -> None:
    """Raises InputError for an address with credentials in it, which it does not repeat: runs keep
    and show their addresses."""
    scheme, separator, rest = location.partition("://")
    if not separator or scheme in ("file", "hf"):
        return
    place, _, options = rest.partition("?")
    bucket = place.partition("/")[0].removeprefix("anonymous@" if scheme == "gs" else "")
    names = [option.partition("=")[0] for option in options.split("&")]
    if (
        "@" in unquote(bucket + options)
        or (scheme in _KEYS_IN and ":" in bucket)
        or any(map(_SECRET.search, names))
    ):
        given = _KEYS_IN.get(scheme)
        raise InputError(
            f"an address {scheme}:// holds credentials: leave them out"
            + (f" and set {given} in the environment" if given else "")
        )


def local_path(given: str) -> Path:
    """`given` as a path on this machine. Raises InputError for an address, of which a path would
    make another."""
    if "://" in given:
        check_address(given)
        raise InputError(f"{given}: expected a path on this machine, not an address")
    return Path(given)


def filesystem(location: str) -> tuple[pafs.FileSystem, str]:
    """Where `location` (a path, or an address s3://, gs:// or hf://datasets/) is, and its path
    there. Raises InputError for another kind of address, and for one with credentials."""
    check_address(location)
    scheme, separator, rest = location.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), str(Path(location).absolute())
    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        return pafs.PyFileSystem(pafs.FSSpecHandler(HfFileSystem())), rest
    # The characters of a file's name are those of its path, not of an address.
    if scheme == "file" and rest.startswith("/") and Path(rest).exists():
        return pafs.LocalFileSystem(), rest
    if scheme not in ("s3", "gs", "file"):
        raise InputError(f"{location}: expected a path, or an address s3://, gs:// or hf://")
    if "#" in location:  # else cut off there without a word
        raise InputError(f"{location}: expected '%23' for '#' in an address")
    with reaching(location):
        found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(location)
    return found


def located(location: str) -> str:
    """`location` by the one name that it keeps: of an address file:// the path, and of one on the
    hub that with the commit in full that it names, or with the newest: a branch and a tag move on.
    """
    if location.startswith("file://"):
        return filesystem(location)[1]
    found = _ON_HUB.fullmatch(location)
    if found is None or commit_of(location):
        return location
    hub, revision, within = found.groups()
    return f"{HUB}{hub}@{newest(hub, revision and unquote(revision))}{within}".rstrip("/")


def newest(hub: str, revision: str | None = None) -> str:
    """The commit in full of what is newest on the hub, of a branch or tag where one is given."""
    from huggingface_hub import HfApi

    with reaching(f"{HUB}{hub}{f'@{revision}' if revision else ''}"):
        return str(HfApi().dataset_info(hub, revision=revision).sha)


def on_hub(location: str) -> tuple[str, str] | None:
    """The repository on the hub and the name in it that an address has; None of other places."""
    found = _ON_HUB.fullmatch(location)
    return (found[1], found[3].strip("/")) if found else None


def commit_of(location: str) -> str | None:
    """The commit in full that an address on the hub names."""
    found = _ON_HUB.fullmatch(location)
    return found[2] if found and _COMMIT.fullmatch(found[2] or "") else None


def apart(location: str) -> tuple[str, str]:
    """An address, and the options after it in object storage, which other places have not."""
    if not location.startswith(_STORES):
        return location.rstrip("/"), ""
    place, mark, options = location.partition("?")
    return place.rstrip("/"), mark + options


def within(location: str, names: Sequence[str]) -> list[str]:
    """The addresses of files that are called `names` in the folder `location`."""
    place, options = apart(location)
    stored = place.startswith(_STORES)
    return [f"{place}/{quote(name) if stored else name}{options}" for name in names]


@contextmanager
def reaching(location: str, done: str = "read") -> Iterator[None]:
    """What fails inside is said in one line: InputError for what is not there or is not what it
    should be, InfraError for a store or a hub that does not answer. `done` is what cannot be."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{location}: no such file") from None
    except _hub_errors("RepositoryNotFoundError", "RevisionNotFoundError") as error:
        raise InputError(
            f"{location}: the hub has no such data set or revision, or shows it to nobody without "
            f"a token in HF_TOKEN ({_first_line(error)})"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{location}: not UTF-8 text ({error.reason})") from None
    except (EOFError, OverflowError, csv.Error, *_TORN) as error:
        raise InputError(f"{location}: cannot be read ({_first_line(error)})") from None
    except (OSError, pa.ArrowException, *_hub_errors("HTTPError")) as error:
        kind = InfraError if "://" in location else InputError
        raise kind(f"{location}: cannot be {done} ({_first_line(error)})") from None


_TORN = (zlib.error, gzip.BadGzipFile, pa.ArrowInvalid)


def _hub_errors(*names: str) -> tuple[type[Exception], ...]:
    """Those that the hub's client raises beside OSError's own, where it is in use."""
    errors = sys.modules.get("huggingface_hub.errors")
    return tuple(getattr(errors, name) for name in names) if errors else ()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
