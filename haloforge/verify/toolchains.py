"""The languages that can be judged: one row of a table each."""

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from haloforge.errors import InputError, ResourceError
from haloforge.schema import CODE_JUDGES, Problem
from haloforge.verify.process import STDERR_CAP, RunResult

AUTO = "auto"
COMPILER_PATH = "/usr/local/bin:/usr/bin:/bin"  # what a box can see
PARSE = """
import warnings
warnings.simplefilter("always")
with open("main.py", "rb") as file:
    compile(file.read(), "main.py", "exec")
"""
GCC_FLAGS = "-O2 -Wall -Wextra -fmax-errors=5 -pthread"
CPP_FLAGS = f"-std=gnu++17 {GCC_FLAGS}"
# The mold linker, where it is installed: linking is a third of compiling a short C++ program. One
# thread, as a box bounds them. Not for C, whose nested functions need a stack it does not give.
MOLD_FOLDER = Path("/usr/libexec/mold")
MOLD = f"-B{MOLD_FOLDER} -Wl,--thread-count=1" if (MOLD_FOLDER / "ld").exists() else ""
CLANG_FLAGS = "-O2 -Wall -Wextra -ferror-limit=5 -pthread"
MINGW = "x86_64-w64-mingw32"
GO_ENVIRONMENT = "GOCACHE=$PWD/cache GO111MODULE=off GOFLAGS= GOTOOLCHAIN=local"
# One garbage collector's and one compiler's thread, and the code's memory, whatever the machine.
JVM = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:ReservedCodeCacheSize=64m",
    "-XX:CompressedClassSpaceSize=64m",
)
_JAVA_TOOL = " ".join(f"-J{option}" for option in JVM)
_TYPE = r"^[ \t]*public[ \t]+([a-z]+[ \t]+)*(class|enum|record|interface)[ \t]+([A-Za-z_]\w*).*"
# javac wants a file named after its public class, and a jar the class that has `main`.
JAVA_BUILD = f"""
file=$(sed -nE 's/{_TYPE}/\\3/p' Main.java | head -n 1)
[ "${{file:=Main}}" = Main ] || mv Main.java "$file.java"
javac {_JAVA_TOOL} -J-Xmx512m -Xlint:all -d classes "$file.java" || exit 1
entry=$(cd classes && grep -rla '(\\[Ljava/lang/String;)V' . | xargs grep -la main | head -n 1)
entry=$(echo "${{entry:-./Main.class}}" | sed 's/^..//; s/.class$//; s|/|.|g')
jar {_JAVA_TOOL} --create --file program --main-class "$entry" -C classes .
"""
CPP_TAGS = frozenset({"cpp", "c++", "cc", "cxx", "cplusplus", "hpp", "g++", "gnu++"})
C_TAGS = frozenset({"c", "h", "gcc", "ansi-c"})
HEADERS = "/headers"
"""Where a box may have precompiled headers; the compiler passes over a folder that is not there."""


def box_python() -> str:
    """A Python that a box can see: the system's, else the one this process runs on."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(path, os.X_OK):
            return path
    return f"{sys.base_prefix}/bin/python3"


PYTHON = (box_python(), "-I", "-B", "-X", "utf8")
"""How Python programs start; the spawner too, which then runs them without a new interpreter."""


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
    """Empty where programs can be compiled only. `MEMORY_MB` stands for the limit of memory."""
    version: tuple[str, ...]
    warning: bytes
    """What marks a warning among the diagnostics."""
    package: str
    """The Debian package that brings it."""
    linker: str = ""
    """Its linker, where that is not the compiler's own."""
    interpreted: bool = False
    """The program is the source: compiling only parses it."""
    reserve_mb: int = 0
    """Address space that the language's runtime takes beside the program's own memory."""
    executable: str = ""
    """What /proc/self/exe is in its boxes: they have no other /proc, and some look beside it."""

    @property
    def program(self) -> str:
        """The program's file name in the box it runs in."""
        return self.source if self.interpreted else "program"

    def warned(self, compilation: RunResult) -> bool:
        """Whether the compiler warned; diagnostics cut at their cap may hide that it did."""
        return self.warning in compilation.stderr or len(compilation.stderr) >= STDERR_CAP


def _build(command: str, program: str = "program") -> tuple[str, ...]:
    # Compilers and linkers want files; only the finished program leaves the box.
    return ("/bin/sh", "-c", f"{{ {command}\n}} >&2 && cat {program}")


def _real(name: str) -> str:
    """Where a command of the toolchain really is; the name itself where it is missing."""
    return str(Path(shutil.which(name, path=COMPILER_PATH) or name).resolve())


# The first row of a language is the one that `auto` takes.
TOOLCHAINS = (
    Toolchain(
        name="gcc",
        language="cpp",
        tags=CPP_TAGS,
        source="main.cpp",
        compile=_build(f"g++ {CPP_FLAGS} -I{HEADERS} {MOLD} -o program main.cpp -lm"),
        run=("./program",),
        version=("g++", "-dumpfullversion"),
        warning=b"warning: ",
        package="g++",
        linker="mold" if MOLD else "",
    ),
    Toolchain(
        name="gcc",
        language="c",
        tags=C_TAGS,
        source="main.c",
        compile=_build(f"gcc -std=gnu17 {GCC_FLAGS} -o program main.c -lm"),
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
        compile=(*PYTHON, "-c", PARSE),
        run=(*PYTHON, "main.py"),
        version=(box_python(), "-c", "import platform; print(platform.python_version())"),
        warning=b"Warning: ",
        package="python3",
        interpreted=True,
    ),
    Toolchain(
        name="rust",
        language="rust",
        tags=frozenset({"rust", "rs"}),
        source="main.rs",
        compile=_build(
            "rustc --edition 2021 -O -C codegen-units=1 -C strip=symbols -o program main.rs"
        ),
        run=("./program",),
        version=("rustc", "--version"),
        warning=b"warning: ",
        package="rustc",
        executable=_real("rustc"),
    ),
    Toolchain(
        name="go",
        language="go",
        tags=frozenset({"go", "golang"}),
        source="main.go",
        compile=_build(f"{GO_ENVIRONMENT} go build -p 2 -o program main.go"),
        run=("/usr/bin/env", "GOMAXPROCS=2", "./program"),  # else a thread a core, over the limit
        version=("go", "version"),
        warning=b"warning: ",  # the compiler has none: what others warn of is an error
        package="golang-go",
        reserve_mb=768,
    ),
    Toolchain(
        name="node",
        language="javascript",
        tags=frozenset({"javascript", "js", "node", "nodejs", "node.js", "ecmascript", "mjs"}),
        source="main.js",
        compile=("node", "--check", "main.js"),
        run=("node", "--max-old-space-size=MEMORY_MB", "main.js"),
        version=("node", "--version"),
        warning=b"Warning: ",
        package="nodejs",
        interpreted=True,
        reserve_mb=2048,  # the code of each worker thread is in half a GiB of its own
    ),
    Toolchain(
        name="java",
        language="java",
        tags=frozenset({"java"}),
        source="Main.java",
        compile=_build(JAVA_BUILD),
        run=("java", *JVM, "-XmxMEMORY_MBm", "-Xss64m", "-jar", "program"),
        version=("java", "--version"),
        warning=b"warning: ",
        package="default-jdk-headless",
        reserve_mb=2048,
        executable=_real("java"),
    ),
    Toolchain(
        name="clang",
        language="cpp",
        tags=CPP_TAGS,
        source="main.cpp",
        compile=_build(f"clang++ -std=gnu++17 {CLANG_FLAGS} {MOLD} -o program main.cpp -lm"),
        run=("./program",),
        version=("clang++", "--version"),
        warning=b"warning: ",
        package="clang",
        linker="mold" if MOLD else "",
    ),
    Toolchain(
        name="clang",
        language="c",
        tags=C_TAGS,
        source="main.c",
        compile=_build(f"clang -std=gnu17 {CLANG_FLAGS} -o program main.c -lm"),
        run=("./program",),
        version=("clang", "--version"),
        warning=b"warning: ",
        package="clang",
    ),
    Toolchain(
        name="mingw",
        language="cpp",
        tags=CPP_TAGS,
        source="main.cpp",
        compile=_build(f"{MINGW}-g++-posix {CPP_FLAGS} -o program main.cpp", "program.exe"),
        run=(),
        version=(f"{MINGW}-g++-posix", "-dumpfullversion"),
        warning=b"warning: ",
        package="g++-mingw-w64-x86-64",
    ),
    Toolchain(
        name="mingw",
        language="c",
        tags=C_TAGS,
        source="main.c",
        compile=_build(
            f"{MINGW}-gcc-posix -std=gnu17 {GCC_FLAGS} -o program main.c", "program.exe"
        ),
        run=(),
        version=(f"{MINGW}-gcc-posix", "-dumpfullversion"),
        warning=b"warning: ",
        package="gcc-mingw-w64-x86-64",
    ),
)


def toolchain_names() -> list[str]:
    """The names that `--verifier` takes, `auto` apart."""
    return list(dict.fromkeys(row.name for row in TOOLCHAINS))


def languages() -> list[str]:
    """The languages that have a toolchain."""
    return list(dict.fromkeys(row.language for row in TOOLCHAINS))


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
    `auto` knows neither language; a verifier of the user's own counts as `auto`.
    """
    if verifier not in toolchain_names():
        verifier = AUTO
    rows = [row for row in TOOLCHAINS if verifier in (AUTO, row.name)]
    for tag in (problem_language, extracted_language):
        for row in rows:
            if tag is not None and language_of(tag) == row.language:
                return row
    return None if verifier == AUTO else rows[0]


def needed(verifier: str, problem: Problem) -> Toolchain | None:
    """The toolchain that a problem needs here, None where its answers decide.

    Raises InputError where its language or its judge has none, ResourceError where it is missing.
    """
    name = f"problem {problem.problem_id}"
    if verifier == AUTO and problem.language and not language_of(problem.language):
        raise InputError(
            f"{name}: no toolchain for language '{problem.language}'; "
            f"known: {', '.join(languages())}"
        )
    row = select(verifier, problem.language, None)
    if row is not None:
        if problem.judge in CODE_JUDGES and row.language != "python":
            raise InputError(f"{name}: judge '{problem.judge}' is for Python, not {row.language}")
        if problem.judge == "program" and row.language != problem.language:
            raise InputError(
                f"{name}: its tests are in {problem.language}, but --verifier {verifier} judges "
                f"{row.language}"
            )
        require(row)
    return row


@functools.cache
def version(row: Toolchain) -> str:
    """Name and version, such as `gcc 12.2.0 mold`, of the one that boxes see. Raises ResourceError
    where it is missing."""
    require(row)
    program = shutil.which(row.version[0], path=COMPILER_PATH) or row.version[0]
    seen = {**os.environ, "PATH": COMPILER_PATH}
    try:
        probe = subprocess.run(
            (program, *row.version[1:]),
            env=seen,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ResourceError(f"{row.version[0]} does not run ({error}): {_install(row)}") from error
    found = re.search(r"\d+\.[\w.]+", probe.stdout)
    return f"{row.name} {found[0] if found else probe.stdout.strip()} {row.linker}".rstrip()


def require(row: Toolchain) -> None:
    """Raise ResourceError, with the command that installs it, when the compiler is missing."""
    if shutil.which(row.version[0], path=COMPILER_PATH) is None:
        raise ResourceError(f"{row.language} needs {row.version[0]}: {_install(row)}")


def _install(row: Toolchain) -> str:
    return f"apt-get install {row.package}"
