"""Programs that differ in comments and white space alone have one form; others do not."""

import io
import time
import tokenize

import pytest

from haloforge.data.normalise import normalise
from haloforge.data.problems import starter_problems

SAME = [
    ("cpp", "int main(){return 0;}", "int main() // hi\n{\n\treturn /* no */ 0 ;\n}\n"),
    ("cpp", "x = -1;", "x=-1;"),
    ("cpp", "a(); b();", "a(); // ends \\\n here too\n b();"),
    ("cpp", "#include <a>\nint x;", "  #  include <a> // why\n\n\nint  x;"),
    ("cpp", "#define A 1 /* b\n */ + 2\nint x;", "#define A 1 + 2\nint x;"),
    ("cpp", "int a = 1'000; f('x');", "int a=1'000;// don't\nf('x');"),
    ("c", "f(a, b);", "f( a,b ) ;"),
    ("rust", "fn f<'a>(x: &'a str) {}", "fn f< 'a >(x: &'a str) /* a /* b */ c */ {}"),
    ("go", "a := 1\nb()", "a  :=  1 // one\n\n\n\tb()"),
    ("javascript", "f(a)\ng(/ a'/)", "f( a )\n\n  g(/ a'/) // it's"),
    ("java", "class A { }", "class A\n{\n}"),
    ("python", "x = 1\nif x:\n    y = [1,2]", "x=1  # one\n\n# two\nif x :   \n    y=[1, 2]\n\n"),
    ("python", "x = 1 + 2", "x = 1 + \\\n    2"),
]
OTHER = [
    ("cpp", 'f("a  b");', 'f("a b");'),
    ("cpp", 'f("// a");', 'f("");'),
    ("cpp", "f(' ');", "f('\t');"),
    ("cpp", 'f(R"(a // b)");', 'f(R"(a )");'),
    ("cpp", 'f(R"x(a)" /* )x");', 'f(R"x(a)"  )x");'),
    ("cpp", "x = a + +b;", "x = a++b;"),
    ("cpp", "x = a / *b;", "x = a;"),
    ("cpp", "int x;", "intx;"),
    ("cpp", "#define A (x)", "#define A(x)"),
    ("cpp", "#define A\nint x;", "#define A int x;"),
    ("cpp", '#define S "x // y"\n', '#define S "x"\n'),
    ("rust", 'f(r#"a " // b"#);', 'f(r#"a " "#);'),
    ("rust", 'f("a\n b");', 'f("a b");'),
    ("go", "f(`a // b`)", "f(`a `)"),
    ("go", "return\nx", "return x"),
    ("go", "c <- x", "c < -x"),
    ("javascript", "return\nx", "return x"),
    ("javascript", "f(`a ${b + `c  d`} // e`)", "f(`a ${b + `c d`} // e`)"),
    ("javascript", "x = /a\\/ \\/ b/", "x = /a\\/"),
    ("java", 's = """\n a // b\n""";', 's = """\n a\n""";'),
    ("python", "if x:\n    y()\nz()", "if x:\n    y()\n    z()"),
    ("python", "    return x", "return x"),
    ("python", "x = '# a'", "x = ''"),
    ("python", 'def f():\n    """Doc  of f."""', 'def f():\n    """Doc of f."""'),
    ("python", "x = '''a # b\n\n c'''", "x = '''a\n c'''"),
    ("python", "x = r'\\' # '", "x = r'\\'"),
    ("python", "a in b", "ainb"),
]


@pytest.mark.parametrize(("language", "one", "two"), SAME)
def test_comments_and_white_space_do_not_tell_programs_apart(
    language: str, one: str, two: str
) -> None:
    assert normalise(one, language) == normalise(two, language)


@pytest.mark.parametrize(("language", "one", "two"), OTHER)
def test_what_means_something_stays(language: str, one: str, two: str) -> None:
    assert normalise(one, language) != normalise(two, language)


def test_an_unknown_language_is_only_stripped() -> None:
    assert normalise("  a  # b\n", None) == "a  # b" == normalise("a  # b", "haskell")


def _tokens(code: str) -> list[tuple[int, str]]:
    """Python's own tokens, without comments, blank lines, and how deep an indentation is."""
    left_out = (tokenize.COMMENT, tokenize.NL)
    return [
        (token.type, "" if token.type in (tokenize.INDENT, tokenize.NEWLINE) else token.string)
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type not in left_out
    ]


def test_python_has_the_same_tokens_after_as_before() -> None:
    references = [
        problem.reference["python"]
        for split in ("train", "test")
        for problem in starter_problems(split)
        if "python" in problem.reference
    ]
    assert len(references) > 100
    for code in references:
        assert _tokens(normalise(code, "python")) == _tokens(code)
        assert normalise(normalise(code, "python"), "python") == normalise(code, "python")


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("cpp", "/*" * 5_000),
        ("rust", "/*" * 2_000),
        ("cpp", 'R"(' * 2_000),
        ("cpp", '"' + "\\" * 9_999),
        ("javascript", "`" + "${a}" * 3_000),
        ("javascript", "x = /" + "[a" * 4_000),
        ("python", '"""' + "a\\" * 5_000),
        ("cpp", " \n" * 20_000 + "#" * 2_000),
    ],
)
def test_no_text_takes_long(language: str, code: str) -> None:
    began = time.process_time()
    normalise(code, language)
    assert time.process_time() - began < 2
