"""What judges programs: the sandbox, which is attacked, and the toolchains."""

import os
import platform
import shutil
import warnings
from pathlib import Path

from haloforge.doctor.finding import Finding, fault, ok, warning
from haloforge.errors import HaloforgeError, ResourceError
from haloforge.verify.extract import Extracted
from haloforge.verify.judges.compilation import compile_answer, run_command
from haloforge.verify.limits import run_limits
from haloforge.verify.sandbox import INSTALL, LANDLOCK, Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import (
    AUTO,
    COMPILER_PATH,
    TOOLCHAINS,
    Toolchain,
    version,
)

DEFAULT = ("gcc", "python")
"""The toolchains of the bundled problems, which `auto` has to have."""
_NAMESPACES = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
_BUBBLEWRAP = "sudo apt-get install -y bubblewrap util-linux python3"
# One that prints 42, in each language.
PROGRAMS = {
    "c": '#include <stdio.h>\nint main(void) { printf("%d\\n", 42); }\n',
    "cpp": "#include <iostream>\nint main() { std::cout << 42 << std::endl; }\n",
    "go": 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println(42) }\n',
    "java": "class Main { public static void main(String[] a) { System.out.println(42); } }\n",
    "javascript": "console.log(42)\n",
    "python": "print(42)\n",
    "rust": 'fn main() { println!("{}", 42); }\n',
}


def needed_toolchains(settings: VerifySettings) -> list[Toolchain]:
    """Those that the settings' verifier cannot do without; none for a verifier of the user's own,
    which may use any or none."""
    if settings.own() is not None:
        return []
    names = DEFAULT if settings.verifier == AUTO else (settings.verifier,)
    return [row for row in TOOLCHAINS if row.name in names]


def check_toolchain(name: str, needed: bool) -> Finding:
    """The versions of a toolchain's compilers, by language."""
    title, found, absent, why = f"toolchain {name}", [], [], []
    for row in TOOLCHAINS:
        if row.name != name:
            continue
        try:
            found.append(f"{version(row).removeprefix(f'{name} ')} ({row.language})")
        except ResourceError as error:
            absent.append(row)
            why.append(_why(row, error))
    if not absent:
        return ok(title, ", ".join(found))
    told = "; ".join(dict.fromkeys(why))
    told = told if needed else f"{told}; not needed for other languages"
    advice = install(" ".join(dict.fromkeys(row.package for row in absent)))
    return (fault if needed else warning)(title, "; ".join([*found, told]), advice)


def _why(row: Toolchain, error: ResourceError) -> str:
    program = row.version[0]
    elsewhere = shutil.which(program)
    if shutil.which(program, path=COMPILER_PATH):
        return str(error).partition(": apt-get")[0]
    if elsewhere:
        return f"{elsewhere} is where no box sees it (they see {COMPILER_PATH})"
    return f"no {program} for {row.language}"


def install(packages: str) -> str:
    """The command that installs Debian packages, in this user's words."""
    if shutil.which("apt-get") is None:
        return f"Install what Debian calls {packages}."
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y {packages}"


def check_sandbox(settings: VerifySettings, system: str | None = None) -> Finding:
    """The tier that stops all attacks that are made on it here, and that a program of each needed
    language is compiled and run in it."""
    name = "sandbox"
    if (system or platform.system()) != "Linux":
        told = "it needs Linux: model-written code cannot be judged here"
        return fault(name, told, "docker build -f cluster/images/cpu.Dockerfile -t haloforge-cpu .")
    if settings.unsafe_no_sandbox:
        told = "verify.unsafe_no_sandbox: model-written code would run with your user's rights"
        return fault(name, told, "Leave verify.unsafe_no_sandbox out.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            sandbox = Sandbox.probe(settings)
        except ResourceError as error:
            return fault(name, str(error).partition(f": {INSTALL}")[0], _advice())
    try:
        wrong = [line for row in needed_toolchains(settings) if (line := _tried(row, sandbox))]
    finally:
        sandbox.close()
    told = f"{sandbox.tier}, attacked and held"
    if wrong:
        return fault(name, f"{told}, but {'; '.join(wrong)}")
    if sandbox.tier == LANDLOCK:
        why = next((str(each.message) for each in said if LANDLOCK in str(each.message)), "")
        return warning(name, f"{told}: {why}", _advice())
    languages = dict.fromkeys(row.language for row in needed_toolchains(settings))
    tried = f"; programs in {', '.join(languages)} compile and run in it" if languages else ""
    return ok(name, told + tried)


def _tried(row: Toolchain, sandbox: Sandbox) -> str | None:
    """What goes wrong with a small program in a box; a missing compiler is told elsewhere."""
    try:
        version(row)
    except ResourceError:
        return None
    settings = VerifySettings(cache=False)
    try:
        answer = Extracted(PROGRAMS[row.language], row.language)
        built = compile_answer(answer, row, sandbox, settings)
        if built.program is None:
            return f"{row.name} compiles no {row.language}: {built.diagnostics.strip()[:200]}"
        if not row.run:
            return None
        command, limits = run_command(row, run_limits(settings))
        files = {row.program: built.program}
        ended = sandbox.run(command, files, b"", limits, row.executable)
    except HaloforgeError as error:
        return f"no box for {row.language}: {error}"
    if ended.stdout.strip() == b"42":
        return None
    return f"a program in {row.language} did not run: {ended.stderr.decode(errors='replace')[:200]}"


def _advice() -> str:
    lines = [_BUBBLEWRAP]
    if Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
        lines.append(_NAMESPACES)
    if Path("/.dockerenv").exists():
        lines.append(
            "Start the container with --security-opt seccomp=unconfined --security-opt "
            "apparmor=unconfined"
        )
    return "\n".join(lines)
