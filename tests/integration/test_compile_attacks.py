"""Attacks of a source on the machine that compiles it: judged by the verdict's text and by what the
host sees of the compilation.

Each works where its guards are off, and a right program beside it is judged right, and in time.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from haloforge.errors import ResourceError
from haloforge.schema import Test
from haloforge.verify.limits import Guards
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import require, select
from tests.attacking import SECRET, Row, Seen, neighbour, open_folder, verdict, watching
from tests.boxes import as_box_user, eventually, guarded, processes_with

OPEN = Guards(namespaces=False, landlock=False)
FREE = Guards(limits=False)
SETTINGS = VerifySettings(
    compile_wall_s=4, compile_memory_mb=128, file_mb=8, run_wall_s=3, cache=False
)
HURRIED = SETTINGS.model_copy(update={"compile_wall_s": 0.6})
PATIENT = SETTINGS.model_copy(update={"compile_wall_s": 30, "compile_memory_mb": 2048})
LATE_S = 15
ANY = [Test(stdin="", stdout="nothing\n")]
NAMES = "namespaces, in which there is no such file"
LANDLOCK = "Landlock, which does not let it be read"
CLEAN = "boxes get an environment of their own"
CLOCK = "the deadline"
LOOKS = "the host looks at the whole box ten times a second"
SPACE = "the kernel's limit of address space"


@pytest.fixture(scope="module")
def host() -> Iterator[dict[str, Any]]:
    """What sources are after: a file, a pipe that nobody writes to, a process's environment."""
    argv = [*as_box_user(), "/bin/sleep", "900"]
    with open_folder() as folder, subprocess.Popen(argv, env={"SECRET": SECRET}) as process:
        (folder / "file").write_text(f"{SECRET}\n")
        os.mkfifo(folder / "pipe")
        (folder / "pipe").chmod(0o644)
        assert eventually(lambda: process.pid in processes_with("/bin/sleep\0"))
        yield {"file": folder / "file", "pipe": folder / "pipe", "pid": process.pid}
        process.kill()


def busy(seen: Seen) -> bool:
    return seen.cpu_s > 3


def late(seen: Seen) -> bool:
    return seen.seconds > LATE_S


def memory(seen: Seen) -> bool:
    return seen.memory_mb > 200


def disk(seen: Seen) -> bool:
    return seen.disk_mb > 20


class Attack(NamedTuple):
    """A source ({names} are the host's), what it is after, and what stops it."""

    language: str
    source: str
    effect: Callable[[Seen], bool] | None
    """None: to have the secret in the verdict's text."""
    first: str
    second: str
    guards: Guards = OPEN
    """Those that are left where what stops it is off."""
    settings: VerifySettings = SETTINGS
    loose: VerifySettings = SETTINGS
    """Settings where what stops it is off, if those are what stops it."""


def reads(language: str, source: str) -> Attack:
    return Attack(language, source, None, NAMES, LANDLOCK, settings=PATIENT, loose=PATIENT)


def grows(language: str, source: str, effect: Any = memory, second: str = LOOKS) -> Attack:
    return Attack(language, source, effect, SPACE, second, FREE, loose=PATIENT)


def lasts(language: str, source: str) -> Attack:
    return Attack(
        language, source, busy, CLOCK, "the kernel's limit of CPU time", Guards(), HURRIED, PATIENT
    )


def types_without_a_name(depth: int) -> str:
    """A Java expression whose type is, at each level, the narrowest that its parts share."""
    if depth == 0:
        return 'List.of(1, "a", 2.0)'
    part = types_without_a_name(depth - 1)
    return f"List.of({part}, Set.of({part}))"


C_SHOW = "extern const char data[], end[];\n#include <stdio.h>\nint main(void) {{ return "
C_SHOW += "fwrite(data, 1, end - data, stdout) == 0; }}\n"
LAUGHS = "\n".join(
    ["#define A0 1,1,1,1,1,1,1,1,1,1"]
    + [f"#define A{i + 1} " + ",".join([f"A{i}"] * 10) for i in range(9)]
    + ["int table[] = {{ A9 }};"]
)
ATTACKS = {
    "#include of a host file": reads("c", '#include "{file}"\nint main(void) {{ }}'),
    "#include through a macro": reads("c", '#define F "{file}"\n#include F\nint main(void) {{ }}'),
    "#include through /proc/self/root": reads("c", '#include "/proc/self/root{file}"\nint x;'),
    "__has_include": reads(
        "c", f'#if __has_include("{{file}}")\n#error "{SECRET}"\n#endif\nint main(void) {{{{ }}}}'
    )._replace(first=NAMES, second="none: Landlock hides contents, not that a file is there"),
    ".incbin": reads("c", 'asm("data: .incbin \\"{file}\\"\\nend: .global data, end");\n' + C_SHOW),
    ".include of the assembler": reads("c", 'asm(".include \\"{file}\\"");\nint main(void) {{ }}'),
    ".incbin in C++": reads(
        "cpp",
        '#include <cstdio>\nasm(".data\\ndata: .incbin \\"{file}\\"\\n.byte 0\\n.global data\\n'
        '.text"); extern "C" {{ extern const char data[]; }}\nint main() {{ std::puts(data); }}',
    ),
    "include_str!": reads("rust", 'fn main() {{ println!("{{}}", include_str!("{file}")); }}'),
    "include_bytes!": reads(
        "rust",
        "use std::io::Write;\nfn main() {{ std::io::stdout()"
        '.write_all(include_bytes!("{file}")).unwrap(); }}',
    ),
    "include_bytes! of another process's environment": reads(
        "rust",
        "use std::io::Write;\nfn main() {{ std::io::stdout()"
        '.write_all(include_bytes!("/proc/{pid}/environ")).unwrap(); }}',
    ),
    "include!": reads("rust", 'fn main() {{ let _ = include!("{file}"); }}'),
    "a module's path": reads("rust", '#[path = "{file}"]\nmod secret;\nfn main() {{ }}'),
    "a C header of Go": reads(
        "go",
        'package main\n/*\nint f(void) {{ return\n#include "{file}"\n; }}\n*/\nimport "C"\n'
        "func main() {{ C.f() }}",
    ),
    "#include of a pipe": reads("c", '#include "{pipe}"\nint main(void) {{ }}')._replace(
        effect=late
    ),
    "#include of /dev/zero": grows("c", '#include "/dev/zero"\nint main(void) {{ }}'),
    "#include of /dev/urandom": grows("c", '#include "/dev/urandom"\nint main(void) {{ }}'),
    "macro laughs": grows("c", LAUGHS),
    "a tree of templates": grows(
        "cpp",
        "template <int D, long N> struct T {{ struct A {{ }}; typename T<D - 1, 2 * N>::A a; "
        "typename T<D - 1, 2 * N + 1>::A b; }};\ntemplate <long N> struct T<0, N> {{ using A = int;"
        " }};\nint main() {{ T<40, 1> x; }}",
    ),
    "a huge table in the program": grows(
        "c",
        "char big[1 << 28] = {{1}};\nint main(void) {{ return big[5]; }}",
        disk,
        "a file system of its own for each box; without namespaces " + LOOKS,
    )._replace(first="the kernel's limit of a file's size"),
    "a huge section": grows(
        "c",
        'asm(".data\\n.zero 0x10000000, 1\\n.text");\nint main(void) {{ }}',
        disk,
        "a file system of its own for each box; without namespaces " + LOOKS,
    )._replace(first="the kernel's limit of a file's size"),
    "a huge table in Go": grows(
        "go",
        "package main\nvar big = [1 << 28]byte{{1 << 28 - 1: 1}}\n"
        "func main() {{ println(big[5]) }}",
        disk,
        "a file system of its own for each box; without namespaces " + LOOKS,
    )._replace(first="the kernel's limit of a file's size"),
    "repeats of the assembler": grows(
        "c", 'asm(".rept 100000000\\n.byte 1\\n.endr");\nint main(void) {{ }}'
    ),
    "macro laughs in Rust": grows(
        "rust",
        '#![recursion_limit = "1000"]\nmacro_rules! m {{ ($($x:tt)*) => {{ '
        "m!($($x)* $($x)*) }}; }}\nfn main() {{ m!(1 + 1); }}",
    ),
    "an endless constexpr": lasts(
        "cpp",
        "constexpr int f(int n) {{ int s = 0; for (int i = 0; i < 200000; i++) s ^= n; return s; }}"
        "\ntemplate <int N> struct S {{ static constexpr int v = f(N) + S<N - 1>::v; }};\n"
        "template <> struct S<0> {{ static constexpr int v = 0; }};\n"
        "static_assert(S<800>::v == 0);",
    ),
    "a source that includes itself": lasts(
        "c",
        "#if __INCLUDE_LEVEL__ < 100\n#include __FILE__\n#include __FILE__\n#endif\n",
    ),
    "a tree of types without a name in Java": lasts(
        "java",
        "import java.util.*;\nclass Main {{ public static void main(String[] a) {{ "
        "var tree = " + types_without_a_name(10) + "; }} }}",
    ),
}


def run(box: Sandbox, attack: Attack, settings: VerifySettings, host: dict[str, Any]) -> bool:
    """Whether an attack had its effect."""
    effect = attack.effect or (lambda seen: False)
    with watching(box, enough=effect) as seen:
        found = verdict(box, attack.language, attack.source.format(**host), ANY, settings)
    assert found["outcome"] != "infra_error", found["diagnostics"]
    return effect(seen) if attack.effect else SECRET in found["diagnostics"]


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest) -> Attack:
    found = ATTACKS[request.param]
    row = select("auto", found.language, None)
    assert row is not None
    try:
        require(row)
    except ResourceError as error:
        pytest.skip(str(error))
    return found


def test_attack_gets_nothing(attack: Attack, host: dict[str, Any], box: Sandbox) -> None:
    with neighbour(box):
        assert not run(box, attack, attack.settings, host)


@pytest.mark.slow
def test_attack_works_without_its_guards(attack: Attack, host: dict[str, Any]) -> None:
    assert run(guarded(attack.guards), attack, attack.loose, host)


TABLE = [Row("compile time", name, each.first, each.second) for name, each in ATTACKS.items()]
