"""A stage as a job of a Ray cluster: what is uploaded, and following the job to its end.

What goes along is this package, so that the job runs the code of the submitter, and the files that
the command or its settings name by a relative path. All else is on the cluster: absolute paths and
URIs are read there, and outputs have to be such, for a job's own folder is gone with it.
"""

import asyncio
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import haloforge
from haloforge.errors import InfraError, InputError, ResourceError
from haloforge.schema import digest

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

MAX_UPLOAD_MB = 100
_PATIENCE_S = 120.0
_AGAIN_S = 2.0
_JOB_SERVER = 8265
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_SKIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


@dataclass(frozen=True)
class Job:
    """`script` in `jobs/` with its `arguments`. `files` are paths relative to the current folder
    that go along; `name` begins the job's id, which is the same for the same job."""

    script: str
    arguments: tuple[str, ...]
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The stage and a digest of what is asked for."""
        return f"{self.script}-{digest(self.script, *self.arguments)[:8]}"

    @property
    def entrypoint(self) -> str:
        """The shell command that runs in the uploaded folder."""
        return shlex.join(["python", f"jobs/{self.script}.py", *self.arguments])


def named_files(values: Iterable[str]) -> tuple[Path, ...]:
    """The relative paths among `values` that are here, also where one is a part of a value, as in
    `check.py:Class` or `cmd:./check.sh {file}`. Raises InputError for one outside this folder."""
    found: dict[Path, None] = {}
    for value in values:
        for word in (value, value.partition(":")[0], *value.removeprefix("cmd:").split()):
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


def check_output(path: str | Path, flag: str) -> None:
    """Raises InputError where the job would write `path` into its own, temporary folder."""
    if "://" not in str(path) and not Path(path).is_absolute():
        raise InputError(
            f"{flag} {path}: relative, so it would be in the job's own folder and gone with it; "
            "give an absolute path that all nodes share, or a URI such as s3://bucket/run"
        )


def stage_upload(job: Job, folder: Path) -> int:
    """Copies what goes along with `job` into `folder`; its bytes.

    Raises InputError where it is more than MAX_UPLOAD_MB, naming the largest.
    """
    package = Path(haloforge.__file__).parent
    script = Path("jobs") / f"{job.script}.py"
    pairs = [
        *_files(package, Path(package.name)),
        (package.parent / script, script),
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
        if inner.is_file() and not _SKIPPED.intersection(inner.parts):
            yield inner, target / inner.relative_to(path)


def connect(address: str | None) -> "JobSubmissionClient":
    """The job server at `address`; None is what RAY_API_SERVER_ADDRESS or RAY_ADDRESS names, or
    a Ray of this machine.

    Raises ResourceError where none answers, or where it wants a token that was not given.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if address is not None:
        for name in _ADDRESSES:  # which Ray would prefer
            os.environ.pop(name, None)
        if "://" not in address and address != "auto":
            address = f"http://{address}" if ":" in address else f"http://{address}:{_JOB_SERVER}"
    where = address or "this machine"
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ResourceError(
            f"the job server at {where} wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN "
            "or RAY_AUTH_TOKEN_PATH to the cluster's"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(f"no job server at {where}: {_first_line(error)}") from error


def submit(client: "JobSubmissionClient", job: Job, say: Callable[[str], None]) -> str:
    """Submits `job` and returns its id. One that runs already is not started a second time."""
    known = [found for found in client.list_jobs() if _is_of(job, found)]
    for found in known:
        if not found.status.is_terminal():
            say(f"job {found.submission_id} runs already: this is that one")
            return str(found.submission_id)
    name = f"{job.name}-{len(known) + 1}"
    with TemporaryDirectory(prefix="haloforge-submit-") as folder:
        size = stage_upload(job, Path(folder))
        say(f"job {name}: uploading {size / 2**20:.1f} MB: {_told(job)}")
        return str(
            client.submit_job(
                entrypoint=job.entrypoint,
                submission_id=name,
                runtime_env={"working_dir": folder},
            )
        )


def _is_of(job: Job, found: "JobDetails") -> bool:
    return str(found.submission_id or "").rpartition("-")[0] == job.name


def _told(job: Job) -> str:
    named = [str(path) for path in job.files]
    return ", ".join(["haloforge/", f"jobs/{job.script}.py", *named])


def follow(client: "JobSubmissionClient", name: str, write: Callable[[str], None]) -> int:
    """Writes what the job says until it ends; its exit code.

    A connection that breaks is made again. Raises InfraError where the cluster does not answer for
    two minutes, or where the job ended without its program having begun.
    """
    written, silent_since = 0, None

    def tell(words: str) -> None:
        nonlocal written
        written += len(words)
        write(words)

    while True:
        try:
            asyncio.run(_tail(client, name, written, tell))
            info = client.get_job_info(name)
            if info.status.is_terminal():
                break
            silent_since = None
        except (OSError, RuntimeError) as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > _PATIENCE_S:
                raise InfraError(
                    f"the cluster of job {name} answers no more ({_first_line(error)}); where it "
                    "is there again, the same command goes on"
                ) from error
        time.sleep(_AGAIN_S)
    if info.driver_exit_code is None and info.status != "SUCCEEDED":
        raise InfraError(f"job {name} {info.status.lower()}: {_first_line(info.message or '')}")
    return int(info.driver_exit_code or 0)


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


def _first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
