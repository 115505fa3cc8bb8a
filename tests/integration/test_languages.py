"""Every language and compiler of the table: right programs pass, wrong ones end as they should."""

from typing import Any, NamedTuple

import pytest

from haloforge.errors import ResourceError
from haloforge.report.hostile import telling_line
from haloforge.schema import Outcome, Problem, Test
from haloforge.verify import toolchains
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import TOOLCHAINS, Toolchain, require
from haloforge.verify.verifier import Verifier

ADD = [Test(stdin="1 2\n", stdout="3\n"), Test(stdin="40 2\n", stdout="42\n")]


class Programs(NamedTuple):
    """Programs of one language that add two numbers, and others that do not."""

    right: str
    broken: str
    fault: str
    """Part of what the compiler says of `broken`."""
    endless: str
    crash: str
    greedy: str
    """Holds on to more than a gigabyte."""
    warned: str | None


C_HEAD = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
C_RIGHT = (
    C_HEAD + 'int main(void) { long a, b; scanf("%ld %ld", &a, &b); printf("%ld\\n", a + b); }'
)
C_FAMILY = Programs(
    right=C_RIGHT.replace("scanf", "if (2 == scanf").replace("&b);", "&b))"),
    broken="int main(void) { return undeclared; }",
    fault="undeclared",
    endless="int main(void) { for (volatile int i = 0;; i++) {} }",
    crash=C_HEAD + "int main(void) { abort(); }",
    greedy=C_HEAD + "char *volatile last;\nint main(void) { for (int i = 0; i < 1200; i++) {"
    " char *p = (char *)malloc(1 << 20);"
    ' if (!p) abort(); memset(p, i, 1 << 20); last = p; } puts("kept"); }',
    warned=C_RIGHT.replace("long a", "int unused; long a"),
)
RUST_READ = (
    "let mut s = String::new(); std::io::Read::read_to_string(&mut std::io::stdin(), &mut s)"
    ".unwrap(); let v: Vec<i64> = s.split_whitespace().map(|x| x.parse().unwrap()).collect();"
)
GO = 'package main\nimport "fmt"\nfunc main() {{ {} }}\n'
JAVA = (
    "import java.util.*;\n// This class adds.\nclass Helper {{ static int add(int a, int b) "
    "{{ return a + b; }} }}\npublic class Solution {{\n  // one class more\n"
    "  public static void main(String[] args) {{ {} }}\n}}\n"
)
JAVA_READ = "Scanner in = new Scanner(System.in); int a = in.nextInt(), b = in.nextInt();"
PROGRAMS = {
    "c": C_FAMILY,
    "cpp": C_FAMILY,
    "python": Programs(
        right="print(sum(map(int, input().split())))",
        broken="def (",
        fault="SyntaxError",
        endless="while True: pass",
        crash="raise SystemExit(1)",
        greedy="x = [bytearray(1 << 20) for _ in range(1200)]\nprint('kept')",
        warned=None,
    ),
    "rust": Programs(
        right=f'fn main() {{ {RUST_READ} println!("{{}}", v[0] + v[1]); }}',
        broken="fn main() { undeclared(); }",
        fault="undeclared",
        endless="fn main() { let mut x = 0u64; "
        "loop { x = unsafe { std::ptr::read_volatile(&x) } + 1; } }",
        crash='fn main() { panic!("no"); }',
        greedy="fn main() { let mut v = Vec::new(); for i in 0..1200usize { "
        'v.push(vec![i as u8; 1 << 20]); } println!("kept {}", v.len()); }',
        warned=f'fn main() {{ {RUST_READ} let unused = 1; println!("{{}}", v[0] + v[1]); }}',
    ),
    "go": Programs(
        right=GO.format("var a, b int; fmt.Scan(&a, &b); fmt.Println(a + b)"),
        broken=GO.format("var unused int; fmt.Println(1)"),
        fault="unused",
        endless=GO.format("for { if false { fmt.Println(1) } }"),
        crash=GO.format('fmt.Println(1); panic("no")'),
        greedy=GO.format(
            "var v [][]byte; for i := 0; i < 3000; i++ { p := make([]byte, 1<<20); "
            'for j := range p { p[j] = byte(i) }; v = append(v, p) }; fmt.Println("kept", len(v))'
        ),
        warned=None,
    ),
    "javascript": Programs(
        right="const t = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\n"
        "console.log(t[0] + t[1]);",
        broken="function (",
        fault="SyntaxError",
        endless="for (;;) {}",
        crash="throw new Error('no');",
        greedy="const v = []; for (let i = 0; i < 4000; i++) v.push(Buffer.alloc(1 << 20, i));\n"
        "console.log('kept', v.length);",
        warned=None,
    ),
    "java": Programs(
        right=JAVA.format(f"{JAVA_READ} System.out.println(Helper.add(a, b));"),
        broken=JAVA.format("undeclared();"),
        fault="cannot find symbol",
        endless=JAVA.format("for (int i = 0; ; i++) { if (args.length > 9) return; }"),
        crash=JAVA.format('if (args.length < 9) throw new RuntimeException("no");'),
        greedy=JAVA.format(
            "List<byte[]> v = new ArrayList<>(); for (int i = 0; i < 1200; i++) "
            "{ byte[] p = new byte[1 << 20]; Arrays.fill(p, (byte) i); v.add(p); } "
            'System.out.println("kept " + v.size());'
        ),
        warned=JAVA.format(
            f"{JAVA_READ} List raw = new ArrayList(); raw.add(a); System.out.println(a + b);"
        ),
    ),
}
RUNNING = [row for row in TOOLCHAINS if row.run]
WARNING = [row for row in TOOLCHAINS if PROGRAMS[row.language].warned]


def name(row: Toolchain) -> str:
    return f"{row.name}-{row.language}"


def judge(row: Toolchain, code: str, box: Sandbox, wall_s: float = 5) -> dict[str, Any]:
    try:
        require(row)
    except ResourceError as error:
        pytest.skip(str(error))
    problem = Problem(problem_id="add", prompt="x", judge="stdio", tests=ADD, language=row.language)
    settings = VerifySettings(verifier=row.name, run_wall_s=wall_s, cache=False)
    fence = "~" * 8
    completion = f"{fence}{row.language}\n{code}\n{fence}"
    verifier = Verifier(settings, {"add": problem})
    verifier.sandbox = box
    return verifier.verify({"sample_id": "s", "problem_id": "add", "completion": completion})


@pytest.mark.parametrize("row", TOOLCHAINS, ids=name)
def test_a_right_program_passes(row: Toolchain, box: Sandbox) -> None:
    verdict = judge(row, PROGRAMS[row.language].right, box)
    wanted = Outcome.PASSED if row.run else Outcome.COMPILED
    assert (verdict["outcome"], verdict["warnings"]) == (wanted, False), verdict["diagnostics"]
    assert verdict["toolchain"].startswith(f"{row.name} ")


@pytest.mark.parametrize("row", TOOLCHAINS, ids=name)
def test_a_broken_program_does_not_compile(row: Toolchain, box: Sandbox) -> None:
    verdict = judge(row, PROGRAMS[row.language].broken, box)
    assert verdict["outcome"] == Outcome.COMPILE_ERROR
    assert PROGRAMS[row.language].fault in telling_line(verdict["diagnostics"])


@pytest.mark.parametrize("row", RUNNING, ids=name)
@pytest.mark.parametrize(
    ("which", "outcomes"),
    [
        ("endless", [Outcome.TIMEOUT]),
        ("crash", [Outcome.RUNTIME_ERROR]),
        ("greedy", [Outcome.MEMORY_LIMIT, Outcome.TIMEOUT]),  # collectors may try for long
    ],
)
def test_a_bad_program_ends_as_it_should(
    row: Toolchain, which: str, outcomes: list[Outcome], box: Sandbox
) -> None:
    wall_s = 2 if which == "endless" else 5
    verdict = judge(row, getattr(PROGRAMS[row.language], which), box, wall_s)
    assert verdict["outcome"] in outcomes, verdict["diagnostics"]
    assert "kept" not in verdict["diagnostics"]  # a wrong answer would be quoted there


@pytest.mark.parametrize("row", WARNING, ids=name)
def test_a_warning_is_seen(row: Toolchain, box: Sandbox) -> None:
    verdict = judge(row, PROGRAMS[row.language].warned or "", box)
    assert verdict["warnings"], verdict["diagnostics"]
    assert "warning: " in telling_line(verdict["diagnostics"])


def test_a_language_that_is_missing_here_is_no_wrong_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where problems name no language the model chooses one, also one without a compiler."""
    any_language = Problem(problem_id="add", prompt="x", judge="stdio", tests=ADD)
    verifier = Verifier(VerifySettings(cache=False), {"add": any_language})
    monkeypatch.setattr(toolchains, "COMPILER_PATH", "/nonexistent")
    toolchains.version.cache_clear()
    completion = f"```rust\n{PROGRAMS['rust'].right}\n```"
    verdict = verifier.verify({"sample_id": "s", "problem_id": "add", "completion": completion})
    assert verdict["outcome"] == Outcome.INFRA_ERROR
    assert "apt-get install rustc" in verdict["diagnostics"]
