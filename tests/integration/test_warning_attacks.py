"""Sources that look cleaner than they are, fill the verdict, or want to change what others compile
with: none does.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from haloforge.errors import ResourceError
from haloforge.verify import box as boxes
from haloforge.verify import sandbox, verifier
from haloforge.verify.limits import compile_limits
from haloforge.verify.sandbox import BUBBLEWRAP, TIERS, Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import HEADERS, PYTHON, Toolchain, require, select
from tests.attacking import Row, open_folder, verdict
from tests.boxes import HELD, bubblewrap
from tests.integration.test_compile_attacks import OPEN

UNUSED = "int main() { int unused; }\n"
OFF = '"-Wunused-variable"'


class Silenced(NamedTuple):
    """A source with a warning that the compiler does not give."""

    source: str
    language: str = "cpp"
    verifier: str = "gcc"


SILENCED = {
    "a pragma": Silenced(f"#pragma GCC diagnostic ignored {OFF}\n{UNUSED}"),
    "a pragma of clang": Silenced(
        f"#pragma clang diagnostic ignored {OFF}\n{UNUSED}", verifier="clang"
    ),
    "a pragma in C": Silenced(f"#pragma GCC diagnostic ignored {OFF}\n{UNUSED}", "c"),
    "a system header, which is the source itself": Silenced(
        f"#if __INCLUDE_LEVEL__\n#pragma GCC system_header\n{UNUSED}"
        "#else\n#include __FILE__\n#endif\n"
    ),
    "a line marker": Silenced(f'# 1 "x.h" 3\n{UNUSED}'),
    "a line marker behind comments": Silenced(f'/**/#/*\n*/1 "x.h" /**/ 3\n{UNUSED}'),
    "the pragma operator": Silenced(
        f'_Pragma("GCC diagnostic ignored \\"-Wunused-variable\\"")\n{UNUSED}'
    ),
    "a pragma spelled by macros": Silenced(
        "#define S(x) #x\n#define T(x) S(x)\n#define C(a, b) a##b\n#define P(x) _Pragma(T(x))\n"
        f"P(GCC C(diag, nostic) ignored {OFF})\n{UNUSED}"
    ),
    "an operator spelled by macros": Silenced(
        "#define C(a, b) b##a\n"
        f'C(ragma, _P)("GCC diagnostic ignored \\"-Wunused-variable\\"")\n{UNUSED}'
    ),
    "a pragma of a header's macro": Silenced(
        f"#include <stdio.h>\n__glibc_macro_warning1(GCC diagnostic ignored {OFF})\n{UNUSED}"
    ),
    "an operator spelled by a header's macro": Silenced(
        "#include <stdio.h>\n"
        f'__CONCAT(_Prag, ma)("GCC diagnostic ignored \\"-Wunused-variable\\"")\n{UNUSED}'
    ),
    "a pragma between what is no comment": Silenced(
        "char q = '\"'; const char *s = \"/*\"; char r = '\"';\n"
        f'#pragma GCC diagnostic ignored {OFF}\nconst char *e = "*/";\n{UNUSED}'
    ),
    "a pragma between raw strings": Silenced(
        f'const char *s = R"(\n/*\n)";\n#pragma GCC diagnostic ignored {OFF}\n'
        f'const char *e = R"(*/)";\n{UNUSED}'
    ),
    "a marker behind a trigraph": Silenced(f'//??/\n# 1 "x.h" 3\n{UNUSED}', verifier="clang"),
    "a marker behind a byte order mark": Silenced(f'\ufeff# 1 "x.h" 3\n{UNUSED}'),
    "a marker behind a carriage return": Silenced(f'// x\r# 1 "x.h" 3\n{UNUSED}'),
    "a marker behind what is no comment": Silenced(
        f'const char q = \'"\', *s = "/*";\n# 1 "x.h" 3\n// */\n{UNUSED}'
    ),
    "a marker behind what is no raw string": Silenced(
        f'#define FOOR\nconst char *s = FOOR"(";\n# 1 "x.h" 3\n// )"\n{UNUSED}'
    ),
    "a flood that hides a warning": Silenced(
        '#pragma message "'
        + "x" * 40000
        + '"\n'
        + '#pragma message "'
        + "x" * 40000
        + f'"\n{UNUSED}'
    ),
    "an attribute in Rust": Silenced(
        "#![allow(warnings)]\nfn main() { let x = 1; }\n", "rust", "rust"
    ),
    "an attribute behind a comment": Silenced(
        "#![/**/allow(warnings)]\nfn main() { let x = 1; }\n", "rust", "rust"
    ),
    "a raw attribute": Silenced(
        "#![r#allow(warnings)]\nfn main() { let x = 1; }\n", "rust", "rust"
    ),
    "an annotation in Java": Silenced(
        'import java.util.*;\n@SuppressWarnings({"rawtypes"})\nclass Main { List a = '
        "new ArrayList(); public static void main(String[] args) { } }\n",
        "java",
        "java",
    ),
    "an annotation of escapes": Silenced(
        'import java.util.*;\n\\u0040Suppress\\u0057arnings("rawtypes")\nclass Main { List a = '
        "new ArrayList(); public static void main(String[] args) { } }\n",
        "java",
        "java",
    ),
}
LONG = VerifySettings(compile_wall_s=60, cache=False)


def toolchain(attack: Silenced) -> Toolchain:
    row = select(attack.verifier, attack.language, None)
    assert row is not None
    try:
        require(row)
    except ResourceError as error:
        pytest.skip(str(error))
    return row


@pytest.mark.parametrize("name", SILENCED)
def test_it_scores_as_if_it_warned(name: str, box: Sandbox) -> None:
    attack = SILENCED[name]
    toolchain(attack)
    settings = LONG.model_copy(update={"verifier": attack.verifier})
    found = verdict(box, attack.language, attack.source, settings=settings)
    assert (found["outcome"], found["reward"]) == ("compiled_with_warnings", 0.3), found


@pytest.mark.parametrize("name", SILENCED)
def test_the_compiler_alone_is_silent(name: str) -> None:
    attack = SILENCED[name]
    row = toolchain(attack)
    held = Sandbox(BUBBLEWRAP, bubblewrap())
    source = {row.source: attack.source.encode()}
    result = held.run(row.compile, source, b"", compile_limits(LONG), row.executable)
    held.close()
    assert result.clean, result.stderr
    assert row.warning not in result.stderr


HONEST = """/* Steps, which don't overlap:
# 1 read "n"
# 2 print 3
*/
#include <cstdio>
#define CAT(a, b) a##b
#define REP(i, n) for (int i = 0, CAT(n_, i) = (n); i < CAT(n_, i); i++)
// ######## "Boards" ########
const char *board = "####\\n# 1\\n";
const char *more = R"(
# 1 "x.h" 3
)";
#line 70 "board.y"
int main() { REP(i, 2) puts(i ? more : board); }
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_an_honest_source_is_clean(compiler: str, box: Sandbox) -> None:
    toolchain(Silenced(HONEST, verifier=compiler))
    settings = LONG.model_copy(update={"verifier": compiler})
    found = verdict(box, "cpp", HONEST, settings=settings)
    assert (found["outcome"], found["reward"]) == ("compiled", 0.5), found


FLOODS = {
    "a flood of messages": '#pragma message "' + "x" * 3000 + '"\n',
    "a message of a megabyte": "\n".join(
        ['#define A0 "0123456789"']
        + [f"#define A{i + 1} {f'A{i} ' * 10}" for i in range(5)]
        + ["_Static_assert(0, A5);"]
    ),
}
FLOODS["a flood of messages"] *= 100


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_does_not_fill_the_verdict(
    name: str, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FLOODS[name] + "\nint main(void) { return 0; }\n"
    assert len(verdict(box, "c", source, settings=LONG)["diagnostics"].encode()) <= 4096
    monkeypatch.setattr(verifier, "DIAGNOSTICS_BYTES", 1 << 30)
    assert len(verdict(box, "c", source, settings=LONG)["diagnostics"]) <= 65 << 10
    monkeypatch.setattr(boxes, "STDERR_CAP", 1 << 30)
    assert len(verdict(box, "c", source, settings=LONG)["diagnostics"]) > 200_000


# What a compiler that was taken over might do; runs in the profile of compilations. `FOLDERS` is
# where the box may have it, and where the host has it.
POISON = """
for folder in FOLDERS:
    for name, mode in ("file", "w"), ("file", "a"), ("new", "w"):
        try:
            with open(f"{folder}/{name}", mode) as file: file.write("poison")
        except OSError: pass
"""


def poison(box: Sandbox, *folders: object) -> None:
    code = POISON.replace("FOLDERS", repr([str(folder) for folder in folders]))
    box.run([*PYTHON, "-c", code], {}, b"", compile_limits(LONG))
    box.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder("/var/tmp") as found:  # boxes with namespaces have a /tmp of their own
        (found / "file").write_text("sound")
        (found / "file").chmod(0o666)
        yield found


def sound(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["file"] and (
        folder / "file"
    ).read_text() == "sound"


def show_headers(box: Sandbox, folder: Path, _: pytest.MonkeyPatch) -> None:
    box.show_headers(folder)


def add_toolchain(box: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = [*sandbox._toolchain_folders(), str(folder)]
    monkeypatch.setattr(sandbox, "_toolchain_folders", lambda: real)
    monkeypatch.setattr(sandbox, "_readable", lambda: real)
    read = [*PYTHON, "-c", f"print(open('{folder}/file').read())"]
    assert box.run(read, {}, b"", compile_limits(LONG)).stdout == b"sound\n"


POISONED: dict[str, Callable[[Sandbox, Path, pytest.MonkeyPatch], None]] = {
    "poison in precompiled headers": show_headers,
    "poison in the toolchain's folders": add_toolchain,
}


@pytest.mark.parametrize("name", POISONED)
@pytest.mark.parametrize("tier", HELD)
def test_nothing_that_others_compile_with_changes(
    name: str, tier: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Sandbox(tier, bubblewrap() if TIERS[tier].namespaces else "")
    POISONED[name](box, folder, monkeypatch)
    poison(box, HEADERS, folder)
    assert sound(folder)


@pytest.mark.parametrize("name", POISONED)
def test_without_its_guards_it_does(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Sandbox(BUBBLEWRAP, guards=OPEN)
    POISONED[name](box, folder, monkeypatch)
    poison(box, HEADERS, folder)
    assert not sound(folder)


SCORED = "sources that may silence it score as if they warned"
TABLE = [
    *(
        Row("compile time", name, SCORED, "cut diagnostics count as warnings")
        if "flood" in name
        else Row("compile time", name, SCORED, "none: the compiler itself is silent")
        for name in SILENCED
    ),
    *(
        Row(
            "compile time", name, "a verdict has 4 KiB of text", "64 KiB are kept of a box's stderr"
        )
        for name in FLOODS
    ),
    *(Row("compile time", name, "a read-only mount", "Landlock") for name in POISONED),
]
