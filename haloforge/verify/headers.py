"""Precompiled headers of the C++ standard library: made once a machine, shown to boxes.

GCC reads `NAME.gch` in place of `NAME` where that is the first thing a source includes, and
compiler, flags and macros are those it was made with; else it reads the header as ever (GCC manual,
"Using Precompiled Headers"). So nothing is declared that the source does not include. Parsing
`iostream` is most of the work of compiling a short program.
"""

import contextlib
import os
import shutil
import stat
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

from haloforge.errors import InfraError
from haloforge.schema import digest
from haloforge.verify.limits import compile_limits
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import COMPILER_PATH, CPP_FLAGS

NAMES = ("iostream", "bits/stdc++.h")
PRECOMPILED_MB = 512  # more than the largest of them
LIBC = Path("/usr/include/features.h")  # the C library is updated apart from the compiler
MAKE_WALL_S, MAKE_MEMORY_MB = 120, 2048  # not the settings', which bound model-written code


def precompile(sandbox: Sandbox, settings: VerifySettings) -> None:
    """Lets compilations in `sandbox` read precompiled headers, made now where they are not there.

    Where they cannot be made or kept safely, a warning says so, and compilations are slower.
    """
    compiler = shutil.which("g++", path=COMPILER_PATH)
    if compiler is None:
        return
    try:
        folder = _folder(compiler)
        for name in NAMES:
            if not (folder / f"{name}.gch").is_file():
                _make(sandbox, settings, folder, name)
        sandbox.show_headers(folder)
        sandbox.run(("/bin/true",), {}, b"", compile_limits(settings))
    except (InfraError, OSError) as error:
        sandbox.show_headers(None)
        warnings.warn(f"C++ compiles slower: no precompiled headers ({error})", stacklevel=2)


def _folder(compiler: str) -> Path:
    """The user's own folder for this compiler, which others may read: boxes run as another user."""
    top = Path(tempfile.gettempdir()) / f"haloforge-headers-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        top.mkdir(mode=0o755)
        top.chmod(0o755)
    found = top.lstat()
    # Whoever made it could plant declarations in every program that is judged.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{top} is not a folder that only this user may write to")
    parts = [path.stat() for path in (Path(compiler).resolve(), LIBC) if path.exists()]
    return top / digest(CPP_FLAGS, *((part.st_size, part.st_mtime_ns) for part in parts))


def _make(sandbox: Sandbox, settings: VerifySettings, folder: Path, name: str) -> None:
    limits = replace(
        compile_limits(settings),
        wall_s=MAKE_WALL_S,
        memory_mb=MAKE_MEMORY_MB,
        file_mb=PRECOMPILED_MB,
        output_kb=PRECOMPILED_MB * 1024,
    )
    build = f"g++ {CPP_FLAGS} -x c++-header -o all.gch all.hpp >&2 && cat all.gch"
    source = f"#include <{name}>\n".encode()
    result = sandbox.run(("/bin/sh", "-c", build), {"all.hpp": source}, b"", limits)
    if not result.clean:
        reason = result.stderr.decode(errors="replace").strip().splitlines()
        raise InfraError(f"g++ does not precompile {name}: {reason[-1] if reason else 'no time'}")
    path = folder / f"{name}.gch"
    for parent in (folder, path.parent):
        parent.mkdir(exist_ok=True)
        parent.chmod(0o755)
    # Several actors may be at it: each writes its own file, and the last one's stays.
    with tempfile.TemporaryDirectory(dir=path.parent) as partial:
        file = Path(partial) / "all.gch"
        file.write_bytes(result.stdout)
        file.chmod(0o644)
        file.replace(path)
