"""Which programs count as trivial: no means to print, or none to read where there is input."""

import pytest

from haloforge.verify.trivial import is_trivial


@pytest.mark.parametrize(
    ("language", "code", "trivial"),
    [
        ("cpp", "int main(){}", True),
        ("cpp", "#include <iostream>\nint main() { return 0; }", True),
        ("cpp", "int main() { int a; std::cin >> a; }", True),
        ("cpp", '#include <cstdio>\nint main() { puts("42"); }', True),
        ("cpp", "int main() { // std::cin >> n;\n std::cout << 1; }", True),
        ("cpp", 'int main() { printf("cin"); }', True),
        ("cpp", "int main() { int a; std::cin >> a; std::cout << a; }", False),
        ("c", 'int main(void) { int a; scanf("%d", &a); printf("%d", a); }', False),
        ("python", "pass", True),
        ("python", "print(42)  # input()", True),
        ("python", '"""print(input())"""', True),
        ("python", "print(int(input()) + 1)", False),
        ("python", "import sys\nsys.stdout.write(sys.stdin.read())", False),
    ],
)
def test_where_tests_have_input(language: str, code: str, trivial: bool) -> None:
    assert is_trivial(code, language, reads_input=True) == trivial


def test_a_fixed_line_is_no_trivial_answer_where_nothing_is_read() -> None:
    assert not is_trivial('int main() { puts("Hello"); }', "cpp", reads_input=False)
    assert is_trivial("int main() {}", "cpp", reads_input=False)


@pytest.mark.parametrize(
    ("language", "empty", "whole"),
    [
        ("rust", "fn main() {}", 'fn main() { let x = stdin().lines(); println!("{}", x); }'),
        ("go", "func main() { /* fmt.Println(fmt.Scan) */ }", "fmt.Scan(&a); fmt.Println(a)"),
        ("javascript", "// console.log(process.stdin)", "console.log(fs.readFileSync(0) + 1)"),
        ("java", "class Main {}", "System.out.println(new Scanner(System.in).nextInt());"),
    ],
)
def test_other_languages(language: str, empty: str, whole: str) -> None:
    assert is_trivial(empty, language, True)
    assert not is_trivial(whole, language, True)
