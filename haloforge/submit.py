"""A stage as a job of a Ray cluster: what is uploaded, and following the job to its end.

What goes along is this package, so that the job runs the code of the submitter, and the files that
the command or its settings name by a relative path. All else is on the cluster: absolute paths and
URIs are read there, and outputs have to be such, for a job's own folder is gone with it. Of the
environment nothing goes along: Ray keeps and shows what a job is given, so that tokens and keys are
set where the cluster's nodes are started.
"""

import asyncio
import logging
import os
import re
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError, RayError

import haloforge
from haloforge.errors import InfraError, InputError, ResourceError
from haloforge.schema import digest
from haloforge.store.storage import check_address
from haloforge.verify.own_sources import COMMAND

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

MAX_UPLOAD_MB = 100
_PATIENCE_S = 120.0
_AGAIN_S = 2.0
_CONNECT_S = 10.0
_TRIES = 3
_JOB_SERVER = 8265
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# By a .gitignore in a folder Ray would leave out what was named on purpose.
_SKIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".git", ".gitignore"}
_LOGGERS = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env")
# What a server that is away, or a proxy before it, ends in.
_BROKEN = (OSError, RuntimeError, ValueError, aiohttp.ClientError)
_ELSEWHERE = "give an absolute path that all nodes share, or a URI such as s3://bucket/run"
_TOKEN = (
    "wants the cluster's token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
)
_MANGLED = re.compile(r"[a-z][a-z0-9+.-]*:/")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S*")


@dataclass(frozen=True)
class Job:
    """`stage` with the `words` of its command line. `files` are paths relative to the current
    folder that go along; `name` begins the job's id, which is the same for the same job."""

    stage: str
    words: tuple[str, ...]
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The stage and a digest of what is asked for."""
        return f"{self.stage}-{digest(*self.words)[:8]}"

    @property
    def entrypoint(self) -> str:
        """The shell command that runs in the uploaded folder."""
        return shlex.join(["python", "-m", haloforge.__name__, *self.words])


def named_files(values: Iterable[str]) -> tuple[Path, ...]:
    """The relative paths among `values` that are here, also in `check.py:Class` and
    `cmd:./check.sh {file}`. Raises InputError for one outside this folder."""
    found: dict[Path, None] = {}
    for value in values:
        if value.startswith(COMMAND):
            words = shlex.split(value.removeprefix(COMMAND))
        else:
            words = [value, value.rpartition(":")[0]]
        for word in words:
            path = Path(word)
            if word in ("", ".") or path.is_absolute() or not path.exists():
                continue
            if ".." in path.parts:
                raise InputError(
                    f"{word} is outside this folder, so it is not uploaded: submit from a folder "
                    "above it, or give an absolute path that the cluster can read"
                )
            found[path] = None
    return tuple(found)


def check_output(path: str | Path | None, flag: str) -> None:
    """Raises InputError where the job would write `path` into its own, temporary folder; None is
    a default there. A Path holds no URI: what names one is a folder called `s3:`."""
    if path is None:
        raise InputError(
            f"{flag} is missing: the results would be in the job's own folder and gone with it; "
            f"{_ELSEWHERE}"
        )
    if isinstance(path, Path) and _MANGLED.match(str(path)):
        raise InputError(
            f"{flag} {path}: this command writes to a path, not to an address; give an absolute "
            "path that all nodes share"
        )
    if "://" not in str(path) and not Path(path).is_absolute():
        raise InputError(
            f"{flag} {path}: relative, so it would be in the job's own folder and gone with it; "
            f"{_ELSEWHERE}"
        )


def check_secrets(words: Iterable[str]) -> None:
    """Raises InputError where an address in one of `words` holds credentials: Ray would keep and
    show them with the job. Settings refuse them by themselves."""
    for word in words:
        for address in _ADDRESS.findall(word):
            check_address(address)


def stage_upload(job: Job, folder: Path) -> int:
    """Copies what goes along with `job` into `folder`; its bytes.

    Raises InputError where it is more than MAX_UPLOAD_MB, naming the largest.
    """
    package = Path(haloforge.__file__).parent
    pairs = [
        *_files(package, Path(package.name)),
        *(pair for path in job.files for pair in _files(path, path)),
    ]
    sizes = {target: source.stat().st_size for source, target in pairs}
    total = sum(sizes.values())
    if total > MAX_UPLOAD_MB * 2**20:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
        told = ", ".join(f"{path} ({sizes[path] / 2**20:.0f} MB)" for path in largest)
        raise InputError(
            f"{total / 2**20:.0f} MB to upload, at most {MAX_UPLOAD_MB} are: {told}; put large "
            "files where the cluster reads them, and name them by an absolute path or a URI"
        )
    for source, target in pairs:
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / target)
    return total


def _files(path: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """The files of `path`, each with where it goes."""
    if path.is_file():
        yield path, target
        return
    for inner in sorted(path.rglob("*")):
        below = inner.relative_to(path)
        if inner.is_file() and not _SKIPPED.intersection(below.parts):
            yield inner, target / below


def connect(address: str | None) -> "JobSubmissionClient":
    """The job server at `address`; None is what RAY_API_SERVER_ADDRESS or RAY_ADDRESS names, or
    a Ray of this machine.

    Raises ResourceError where none answers, or where it wants a token that was not given.
    """
    from ray.job_submission import JobSubmissionClient

    for name in _LOGGERS:  # each request is told there
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    if address is not None:
        for name in _ADDRESSES:  # which Ray would prefer
            os.environ.pop(name, None)
        if "://" not in address and address != "auto":
            address = f"http://{address}" if ":" in address else f"http://{address}:{_JOB_SERVER}"
    named = address or next((os.environ[name] for name in _ADDRESSES if os.environ.get(name)), None)
    where = named or "this machine"
    try:
        _probe(named)
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ResourceError(f"the job server at {where} {_TOKEN}") from error
    except TimeoutError as error:
        raise ResourceError(f"no job server at {where}: no answer in {_CONNECT_S:g} s") from error
    except (*_BROKEN, RayError, LookupError, TypeError) as error:  # as of another server
        raise ResourceError(f"no job server at {where}: {_line(error)}") from error


def _probe(address: str | None) -> None:
    """Raises TimeoutError where `address` does not answer in time; Ray would wait for minutes. What
    else is wrong with it is left to Ray to find."""
    if address is None or ":" not in address:
        return
    if address.startswith(("http://", "https://")):
        try:
            requests.get(f"{address.rstrip('/')}/api/version", timeout=_CONNECT_S)
        except requests.Timeout as error:
            raise TimeoutError from error
        except requests.RequestException:
            return
    else:
        parts = urlsplit(address if "://" in address else f"//{address}")
        socket.create_connection((parts.hostname, parts.port or _JOB_SERVER), _CONNECT_S).close()


def submit(client: "JobSubmissionClient", job: Job, say: Callable[[str], None]) -> str:
    """Submits `job` and returns its id. One that runs already is not started a second time.

    Raises InfraError where the server does not take it.
    """
    with TemporaryDirectory(prefix="haloforge-submit-") as folder:
        size = stage_upload(job, Path(folder))
        for _ in range(_TRIES):
            with _asking("the job server does not list its jobs"):
                known = {str(found.submission_id): found for found in client.list_jobs()}
            numbers = [0]
            for name, found in known.items():
                if (number := _number(job, name)) is None:
                    continue
                if not found.status.is_terminal():
                    say(f"job {name} runs already: this is that one")
                    return name
                numbers.append(number)
            name = f"{job.name}-{max(numbers) + 1}"
            say(f"job {name}: uploading {size / 2**20:.1f} MB: {_told(job)}")
            try:
                with _asking(f"the job server did not take job {name}"):
                    client.submit_job(
                        entrypoint=job.entrypoint,
                        submission_id=name,
                        runtime_env={"working_dir": folder},
                    )
                return name
            except InfraError as error:
                if "already exists" not in str(error):  # as where another was faster
                    raise
                refused = error
        raise refused


def _number(job: Job, name: str) -> int | None:
    """Which submission of `job` the id `name` is; None for another job's."""
    begins, _, number = name.rpartition("-")
    return int(number) if begins == job.name and number.isdecimal() else None


def _told(job: Job) -> str:
    return ", ".join([f"{haloforge.__name__}/", *map(str, job.files)])


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """What fails inside is said in one line, which begins with `what`."""
    try:
        yield
    except AuthenticationError as error:
        raise ResourceError(f"the job server {_TOKEN}") from error
    except _BROKEN as error:
        raise InfraError(f"{what}: {_line(error)}") from error


def follow(client: "JobSubmissionClient", name: str, write: Callable[[str], None]) -> int:
    """Writes what the job says until it ends; its exit code.

    A connection that breaks is made again. Raises InfraError where the cluster does not answer for
    two minutes or does not know the job any more, or where the job ended without its program having
    begun.
    """
    written, broken, silent_since = 0, 0, None

    def tell(words: str) -> None:
        nonlocal written
        written += len(words)
        try:
            write(words)
        except OSError as error:
            raise InfraError(
                f"what job {name} says cannot be written ({_line(error)}); it goes on"
            ) from error

    while True:
        try:
            asyncio.run(_tail(client, name, written, tell))
            broken = 0
        except _BROKEN:  # what of, the next request says
            broken += 1
        try:
            info = client.get_job_info(name)
        except AuthenticationError as error:
            raise ResourceError(f"the job server of job {name} {_TOKEN}") from error
        except _BROKEN as error:
            if _is_unknown(client, name, error):
                raise InfraError(
                    f"job {name} is not known there any more: the cluster's head was started anew, "
                    "which ended it; submitted again it goes on where it was"
                ) from error
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > _PATIENCE_S:
                raise InfraError(
                    f"the cluster of job {name} answers no more ({_line(error)}); where it "
                    "is there again, the same command goes on"
                ) from error
        else:
            silent_since = None
            if info.status.is_terminal() and (not broken or broken >= _TRIES):
                break
        time.sleep(_AGAIN_S)
    if info.driver_exit_code is None and info.status != "SUCCEEDED":
        raise InfraError(f"job {name} {info.status.lower()}: {_line(info.message or '')}")
    return int(info.driver_exit_code or 0)


def _is_unknown(client: "JobSubmissionClient", name: str, error: Exception) -> bool:
    """Whether the server itself says so: a 404 alone may be a proxy's."""
    if "status code 404" not in str(error):
        return False
    try:
        return all(found.submission_id != name for found in client.list_jobs())
    except _BROKEN:
        return False


async def _tail(
    client: "JobSubmissionClient", name: str, known: int, tell: Callable[[str], None]
) -> None:
    """Tells what the job says, which begins anew each time, but for the `known` characters."""
    seen = 0
    async for words in client.tail_job_logs(name):
        new = words[max(0, known - seen) :]
        seen += len(words)
        if new:
            tell(new)


def _line(error: object) -> str:
    """The first line of a message; of a traceback, in which Ray's server tells its errors, the
    last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    if not lines:
        return type(error).__name__ if isinstance(error, Exception) else "no message"
    return lines[-1] if "Traceback" in lines[0] else lines[0]
