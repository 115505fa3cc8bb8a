"""The reward of every outcome, and sources that silence the compiler."""

import pytest

from haloforge.schema import Outcome
from haloforge.verify.rewards import reward, silences_warnings


@pytest.mark.parametrize(
    ("outcome", "warnings", "ran", "expected"),
    [
        (Outcome.NO_CODE, False, False, 0.0),
        (Outcome.COMPILE_ERROR, False, False, 0.0),
        (Outcome.COMPILE_ERROR, True, False, 0.0),
        (Outcome.INFRA_ERROR, False, False, 0.0),
        (Outcome.COMPILED_WITH_WARNINGS, True, False, 0.3),
        (Outcome.COMPILED, False, False, 0.5),
        (Outcome.RUNTIME_ERROR, False, False, 0.5),
        (Outcome.RUNTIME_ERROR, True, False, 0.3),
        (Outcome.TIMEOUT, False, False, 0.5),
        (Outcome.TIMEOUT, True, False, 0.3),
        (Outcome.OUTPUT_LIMIT, False, False, 0.5),
        (Outcome.MEMORY_LIMIT, False, False, 0.5),
        (Outcome.MEMORY_LIMIT, True, False, 0.3),
        (Outcome.WRONG_ANSWER, False, True, 0.7),
        (Outcome.WRONG_ANSWER, True, True, 0.7),
        (Outcome.WRONG_ANSWER, False, False, 0.5),
        (Outcome.PASSED, False, True, 1.0),
        (Outcome.PASSED, True, True, 1.0),
    ],
)
def test_highest_rung_counts(outcome: Outcome, warnings: bool, ran: bool, expected: float) -> None:
    assert reward(outcome, warnings, ran) == expected


@pytest.mark.parametrize(
    "code",
    [
        '#pragma GCC diagnostic ignored "-Wall"\nint main() {}\n',
        "  #  pragma   GCC   diagnostic push\nint main() {}\n",
        "#pragma GCC system_header\nint main() {}\n",
        '#pragma clang diagnostic ignored "-Wall"\n',
        '# 1 "x.h" 3\nint main() {}\n',
        "#pra\\\ngma GCC diag\\\nnostic push\n",
        "%:pragma GCC diagnostic push\n",
        "??=pragma GCC diagnostic push\n",
        "/* a */ # /* b */ pragma GCC /* c */ diagnostic push\n",
        '_Pragma("GCC diagnostic ignored \\"-Wunused\\"") int main() {}\n',
        "#define QUIET(x) _Pragma(#x)\nQUIET(GCC diagnostic push)\n",
        'const char *s = "/*";\n#pragma GCC diagnostic push\nconst char *e = "*/";\n',
        "int main() {}\r\n#pragma GCC diagnostic push\r\n",
        # Comments and strings are not what they seem.
        "char q = '\"'; const char *s = \"/*\"; char r = '\"';\n#pragma GCC diagnostic push\n//*/",
        'const char *s = R"(\n/*\n)";\n#pragma GCC diagnostic push\nchar *e = R"(*/)";\n',
        "// what??/\n#pragma GCC diagnostic push\n",
        '//??/\n# 1 "x.h" 3\n',
        '#/* /*\n"*/ 1 "x.h" 3\n',
        '/**/ #/**/ 1 /**/ "x.h" 3\n',
        "#pragma GCC diag\\  \nnostic push\n",
        "#define W diagnostic\n#define T(x) _Pragma(#x)\n#define S(x) T(x)\nS(GCC W push)\n",
        '#define C(a, b) b##a\nC(ragma, _P)("GCC dia" "gnostic push")\n',
        "#define C(a, b) a%:%:b\n#define P(x) _Pragma(#x)\nP(C(G, CC) C(diag, nostic) push)\n",
        '#include <cstdio>\n__CONCAT(_Prag, ma)("GCC diagnostic push")\n',
        "#include <cstdio>\n__glibc_macro_warning1(GCC diagnostic push)\n",
        '\ufeff# 1 "x.h" 3\n',
        'int x; // one\r# 1 "x.h" 3\n',
        '// one\\\r/*\n# 1 "x.h" 3\n/**/\n',
        '# 1\'0 "x.h" 3\n',
        # What looks like a comment or a raw string around a marker.
        'char q = \'"\', s[] = "/*";\n# 1 "x.h" 3\n//*/',
        '#if __has_include(</*>)\n#endif\n# 1 "x.h" 3\n//*/',
        '#if __has_include("\\") // " /*\n#endif\n# 1 "x.h" 3\n//*/',
        'auto s = "a"; /*\nR"( */\n# 1 "x.h" 3\n//)"',
        '#define FOOR\nFOOR"("\n# 1 "x.h" 3\n//)"',
        'auto s = R"()\\\n" /*)";\n# 1 "x.h" 3\nauto t = R"(*/)";\n',
        'auto s = R"(a)"R"("\n# 1 "x.h" 3\n//)"',
        'int n = 1\'0; auto s = "\'/*";\n# 1 "x.h" 3\n//*/',
    ],
)
def test_silencing_is_seen(code: str) -> None:
    assert silences_warnings(code, "cpp")
    assert not silences_warnings(code, "python")


@pytest.mark.parametrize(
    "code",
    [
        '#pragma GCC optimize("O3")\nint main() {}\n',
        "#pragma once\n#include <cstdio>\n",
        "#define line 3\nint lines = 1;\n",
        "#define N /* most */ 10\nint f(int);\nint x = f(/* n */ 1e9) + f(/* n */ 10LL);\n",
        'int main() { printf("Case #1: %d", /* one */ 1); }\n',
        "#define debug(x, ...) fprintf(stderr, #x, ##__VA_ARGS__)\n",
        "int main() { int diagnostic = 1; return diagnostic - 1; }\n",
        "#define CAT(a, b) a##b\nint CAT(x, 1);\n",
        "#define rep(i, n) for (int i = 0, n_##i = n; i < n_##i; i++)\n",
        "// ######## 1. Input ########\nint main() {}\n",
        'int main() { puts("####"); puts("\\n# 1\\n"); char c = \'#\'; }\n',
        '/* Steps, which don\'t overlap:\n# 1 read "n"\n# 2 print 3\n*/\nint main() {}\n',
        'const char *s = "one\\\n# 1 two 3";\n',
        'const char *s = R"(\n# 1 "x.h" 3\n)";\nint main() { cout << R"-(\n# 2 /*)-"; }\n',
        'int main() { puts("a"); }  // it\'s\n\n// # 1 "x.h" 3\n',
        '#line 7 "grammar.y"\nint main() {}\n',
        '#pragma GCC optimize("O3")\nint a, c, d, g, i, n, s, t;  // diagonals\n',
    ],
)
def test_honest_sources_do_not_silence(code: str) -> None:
    assert not silences_warnings(code, "cpp")


@pytest.mark.parametrize(
    ("language", "code", "silent"),
    [
        ("rust", "#![allow(warnings)]\nfn main() {}\n", True),
        ("rust", "fn main() { #[allow(unused_variables)] let x = 1; }\n", True),
        ("rust", "fn main() { let a = '\"'; #[allow(unused)] let b = '\"'; }\n", True),
        ("rust", "#![/* a */ allow(warnings)]\nfn main() {}\n", True),
        ("rust", "#![r#allow/**/(warnings)]\nfn main() {}\n", True),
        ("rust", "#[\nexpect(unused)]\nfn main() {}\n", True),
        ("rust", 'fn main() { f().expect("allow it"); g()\n    .expect("it"); }\n', False),
        ("rust", "#[derive(Debug)]\nstruct A;\nfn main() {}\n", False),
        ("java", '@SuppressWarnings("all") class Main {}\n', True),
        ("java", "@java.lang.SuppressWarnings({}) class Main {}\n", True),
        ("java", "@java.lang./* a */SuppressWarnings({}) class Main {}\n", True),
        ("java", r"\uu0040SuppressWarnings({}) class Main {}", True),
        ("java", "@Override public String toString() {}\n", False),
    ],
)
def test_rust_and_java_silence_by_attributes(language: str, code: str, silent: bool) -> None:
    assert silences_warnings(code, language) == silent
