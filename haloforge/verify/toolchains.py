"""The languages that can be judged: one row of a table each."""

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from haloforge.errors import ResourceError
from haloforge.verify.process import STDERR_CAP, RunResult

AUTO = "auto"
COMPILER_PATH = "/usr/local/bin:/usr/bin:/bin"  # what a box can see
PARSE = "with open('main.py', 'rb') as file: compile(file.read(), 'main.py', 'exec')"
GCC_FLAGS = "-O2 -Wall -Wextra -fmax-errors=5 -pthread"
CPP_FLAGS = f"-std=gnu++17 {GCC_FLAGS}"
# The mold linker, where it is installed: linking is a third of compiling a short C++ program. One
# thread, as a box bounds them. Not for C, whose nested functions need a stack it does not give.
MOLD_FOLDER = Path("/usr/libexec/mold")
MOLD = f"-B{MOLD_FOLDER} -Wl,--thread-count=1" if (MOLD_FOLDER / "ld").exists() else ""
HEADERS = "/headers"
"""Where a box may have precompiled headers; the compiler passes over a folder that is not there."""


def box_python() -> str:
    """A Python that a box can see: the system's, else the one this process runs on."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(path, os.X_OK):
            return path
    return f"{sys.base_prefix}/bin/python3"


@dataclass(frozen=True)
class Toolchain:
    """How one language is compiled and run. Commands run in the folder that holds the source."""

    name: str
    """What `--verifier` calls it; several languages may share one."""
    language: str
    tags: frozenset[str]
    """Spellings of the language on a fence, without a version number at the end."""
    source: str
    """The source's file name in the box."""
    compile: tuple[str, ...]
    """Prints the program on standard output, and diagnostics on standard error."""
    run: tuple[str, ...]
    version: tuple[str, ...]
    warning: bytes
    """What marks a warning among the diagnostics."""
    package: str
    """The Debian package that brings it."""
    linker: str = ""
    """Its linker, where that is not the compiler's own."""
    interpreted: bool = False
    """The program is the source: compiling only parses it."""

    @property
    def program(self) -> str:
        """The program's file name in the box it runs in."""
        return self.source if self.interpreted else "program"

    def warned(self, compilation: RunResult) -> bool:
        """Whether the compiler warned; diagnostics cut at their cap may hide that it did."""
        return self.warning in compilation.stderr or len(compilation.stderr) >= STDERR_CAP


def _gcc(compiler: str, flags: str, source: str) -> tuple[str, ...]:
    # cc1 and the linker want files; only the finished program leaves the box.
    build = f"{compiler} {flags} -o program {source} -lm >&2 && cat program"
    return ("/bin/sh", "-c", build)


TOOLCHAINS = (
    Toolchain(
        name="gcc",
        language="cpp",
        tags=frozenset({"cpp", "c++", "cc", "cxx", "cplusplus", "hpp", "g++", "gnu++"}),
        source="main.cpp",
        compile=_gcc("g++", f"{CPP_FLAGS} -I{HEADERS} {MOLD}", "main.cpp"),
        run=("./program",),
        version=("g++", "-dumpfullversion"),
        warning=b"warning: ",
        package="g++",
        linker="mold" if MOLD else "",
    ),
    Toolchain(
        name="gcc",
        language="c",
        tags=frozenset({"c", "h", "gcc", "ansi-c"}),
        source="main.c",
        compile=_gcc("gcc", f"-std=gnu17 {GCC_FLAGS}", "main.c"),
        run=("./program",),
        version=("gcc", "-dumpfullversion"),
        warning=b"warning: ",
        package="gcc",
    ),
    Toolchain(
        name="python",
        language="python",
        tags=frozenset({"python", "py", "pypy", "cpython", "ipython"}),
        source="main.py",
        compile=(box_python(), "-I", "-S", "-X", "utf8", "-W", "always", "-c", PARSE),
        run=(box_python(), "-I", "-B", "-X", "utf8", "main.py"),
        version=(box_python(), "-c", "import platform; print(platform.python_version())"),
        warning=b"Warning: ",
        package="python3",
        interpreted=True,
    ),
)


def toolchain_names() -> list[str]:
    """The names that `--verifier` takes, `auto` apart."""
    return list(dict.fromkeys(row.name for row in TOOLCHAINS))


def languages() -> list[str]:
    """The languages that have a toolchain."""
    return [row.language for row in TOOLCHAINS]


def language_of(tag: str) -> str | None:
    """The language that a fence's tag or a problem's `language` names, None if it is none of ours.

    Case, braces and dots of attribute lists, and a version at the end do not matter: `C++17`,
    `{.cpp}` and `python3.11` are known.
    """
    name = tag.strip().lower().strip("{}.").strip()
    for spelling in (name, re.sub(r"[\d.]+$", "", name)):
        for row in TOOLCHAINS:
            if spelling in row.tags:
                return row.language
    return None


def default_language(verifier: str, problem_language: str | None) -> str | None:
    """The language an answer is looked for in; None where its fence decides."""
    row = select(verifier, problem_language, None)
    return row.language if row else None


def select(
    verifier: str, problem_language: str | None, extracted_language: str | None
) -> Toolchain | None:
    """The row that judges an answer: the problem's language first, then the answer's own.

    A named verifier wins over both: outside its languages, its first row is taken. None when
    `auto` knows neither language.
    """
    rows = [row for row in TOOLCHAINS if verifier in (AUTO, row.name)]
    for tag in (problem_language, extracted_language):
        for row in rows:
            if tag is not None and language_of(tag) == row.language:
                return row
    return None if verifier == AUTO else rows[0]


@functools.cache
def version(row: Toolchain) -> str:
    """Name and version, such as `gcc 12.2.0 mold`. Raises ResourceError where it is missing."""
    require(row)
    try:
        probe = subprocess.run(row.version, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ResourceError(f"{row.version[0]} does not run ({error}): {_install(row)}") from error
    return f"{row.name} {probe.stdout.strip()} {row.linker}".rstrip()


def require(row: Toolchain) -> None:
    """Raise ResourceError, with the command that installs it, when the compiler is missing."""
    if shutil.which(row.version[0], path=COMPILER_PATH) is None:
        raise ResourceError(f"{row.language} needs {row.version[0]}: {_install(row)}")


def _install(row: Toolchain) -> str:
    return f"apt-get install {row.package}"
