"""Right programs that do unusual things stay right, in both tiers."""

from typing import NamedTuple

import pytest

from haloforge.errors import ResourceError
from haloforge.schema import Outcome, Test
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import require, select
from tests.attacking import verdict

SETTINGS = VerifySettings(compile_wall_s=60, run_wall_s=20, cache=False)
CPP = "#include <cstdio>\n#include <iostream>\n{}using namespace std;\nint main() {{ {} }}\n"
THREADS = "#include <atomic>\n#include <thread>\n#include <unistd.h>\n#include <vector>\n"


class Right(NamedTuple):
    """A program and its test."""

    language: str
    code: str
    stdout: str
    stdin: str = ""


def cpp(body: str, stdout: str, stdin: str = "", head: str = "") -> Right:
    return Right("cpp", CPP.format(head, body), stdout, stdin)


def python(code: str, stdout: str, stdin: str = "") -> Right:
    return Right("python", code, stdout, stdin)


NUMBERS = "".join(f"{n * 7}\n" for n in range(65_000))  # 400 kB
WORDS = "word " * 200_000
TEXT = "h\u00e9llo \u4e16\u754c \U0001f642\n"
LOUD = 'fwrite("\\xff\\xfe", 1, 2, stderr); puts("1");'
PROGRAMS = {
    "400 kB of output": cpp("for (int n = 0; n < 65000; n++) cout << n * 7 << endl;", NUMBERS),
    "fast output": cpp(
        "ios::sync_with_stdio(false); cin.tie(nullptr); int n; cin >> n;"
        " for (int i = 0; i < n; i++) cout << i * 7 << '\\n';",
        NUMBERS,
        "65000\n",
    ),
    "threads": cpp(
        "atomic<long> sum{0}; vector<thread> pool; for (int t = 0; t < 8; t++)"
        " pool.emplace_back([&sum, t] { sum += t; }); for (auto &t : pool) t.join(); cout << sum;",
        "28\n",
        head=THREADS,
    ),
    "threads beside a large static array": cpp(
        "static int big[75 << 20]; for (int i = 0; i < 75 << 20; i += 1024) big[i] = 1;"
        " atomic<int> up{0}; vector<thread> pool; for (int t = 0; t < 24; t++) {"
        " pool.emplace_back([&up] { delete new string(99, up++); while (up < 24) usleep(99); });"
        " while (up <= t) usleep(99); } for (auto &t : pool) t.join(); cout << up + big[1024];",
        "25\n",
        head=THREADS,
    ),
    "deep recursion": cpp(
        "auto f = [](auto self, long n) -> long { volatile char pad[64] = {0};"
        " return n ? pad[0] + 1 + self(self, n - 1) : 0; }; cout << f(f, 1000000);",
        "1000000\n",
    ),
    "a large static array": cpp(
        "static int big[100 << 20]; for (int i = 0; i < 100 << 20; i += 1024) big[i] = 1;"
        " cout << big[1024] + big[5];",
        "1\n",
    ),
    "text that is not ASCII": cpp("string s; getline(cin, s); cout << s << endl;", TEXT, TEXT),
    "errors that are not UTF-8": cpp(LOUD, "1\n"),
    "CRLF out": cpp('cout << "1\\r\\n2\\r\\n";', "1\n2\n"),
    "CRLF in": cpp("int a, b; cin >> a >> b; cout << a + b;", "3\n", "1\r\n2\r\n"),
    "a source with CRLF": Right(
        "cpp", '#include <cstdio>\r\nint main() {\r\n  puts("1");\r\n}\r\n', "1\n"
    ),
    "input left unread": cpp('puts("1");', "1\n", WORDS),
    "a megabyte read slowly": cpp(
        "long n = 0; while (getchar() != EOF) if (++n % 100000 == 0)"
        " this_thread::sleep_for(chrono::milliseconds(20)); cout << n;",
        "1000000\n",
        WORDS,
        THREADS,
    ),
    "no newline at the end": cpp('printf("1\\n2");', "1\n2\n"),
    "400 kB of output in Python": python("for n in range(65000): print(n * 7)", NUMBERS),
    "fast output in Python": python(
        "import sys\nread = sys.stdin.buffer.readline\nn = int(read())\n"
        "sys.stdout.write('\\n'.join(str(i * 7) for i in range(n)))",
        NUMBERS,
        "65000\n",
    ),
    "threads in Python": python(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: print(sum(pool.map(abs, range(8))))",
        "28\n",
    ),
    "deep recursion in Python": python(
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(128 << 20)\n"
        "def f(n): return n and 1 + f(n - 1)\n"
        "t = threading.Thread(target=lambda: print(f(50000)))\nt.start()\nt.join()",
        "50000\n",
    ),
    "a large array in Python": python(
        "big = bytearray(400 << 20)\nbig[5] = 1\nprint(sum(big[:9]))", "1\n"
    ),
    "text that is not ASCII in Python": python("print(input())", TEXT, TEXT),
    "errors that are not UTF-8 in Python": python(
        "import os\nos.write(2, b'\\xff')\nprint(1)", "1\n"
    ),
    "CRLF out in Python": python("print('1\\r\\n2\\r')", "1\n2\n"),
    "CRLF in in Python": python("print(int(input()) + int(input()))", "3\n", "1\r\n2\r\n"),
    "a source with CRLF in Python": python("if True:\r\n    print(1)\r\n", "1\n"),
    "input left unread in Python": python("print(1)", "1\n", WORDS),
    "a megabyte read slowly in Python": python(
        "import sys, time\nn = 0\nwhile part := sys.stdin.read(100000):\n    n += len(part)\n"
        "    time.sleep(0.02)\nprint(n)",
        "1000000\n",
        WORDS,
    ),
    "no newline at the end in Python": python("print('1\\n2', end='')", "1\n2\n"),
    "threads in Rust": Right(
        "rust",
        "use std::thread::spawn;\nfn main() { let all: Vec<_> = (0..8u64)"
        '.map(|n| spawn(move || n)).collect(); println!("{}", '
        "all.into_iter().map(|t| t.join().unwrap()).sum::<u64>()); }",
        "28\n",
    ),
    "routines and channels in Go": Right(
        "go",
        'package main\nimport "fmt"\nfunc main() { c := make(chan int); for n := 0; n < 1000; n++ '
        "{ go func(n int) { c <- n }(n) }; s := 0; for n := 0; n < 1000; n++ { s += <-c }; "
        "fmt.Println(s) }",
        "499500\n",
    ),
    "much work and timers in Node": Right(
        "javascript",
        "let s = 0; for (let i = 0; i < 5e7; i++) s = (s + i * i) % 1000003;\n"
        "Promise.all([1, 2, 3].map(n => new Promise(done => setTimeout(done, 10, n))))"
        ".then(all => console.log(all.join(' ')));",
        "1 2 3\n",
    ),
    "threads and streams in Java": Right(
        "java",
        "import java.util.stream.*;\nclass Main { public static void main(String[] args) throws "
        "Exception { Thread t = new Thread(() -> System.out.print("
        'LongStream.range(0, 1000000).parallel().sum() + "\\n")); t.start(); t.join(); } }',
        "499999500000\n",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_passes(name: str, box: Sandbox) -> None:
    right = PROGRAMS[name]
    row = select("auto", right.language, None)
    assert row is not None
    try:
        require(row)
    except ResourceError as error:
        pytest.skip(str(error))
    test = Test(stdin=right.stdin, stdout=right.stdout)
    found = verdict(box, right.language, right.code, [test], SETTINGS)
    assert (found["outcome"], found["reward"]) == (Outcome.PASSED, 1.0), found


def test_output_that_is_not_utf8_is_a_wrong_answer(box: Sandbox) -> None:
    """Expected output is text; what is none cannot be right."""
    code = "import os\nos.write(1, b'caf\\xe9\\n')"
    found = verdict(box, "python", code, [Test(stdin="", stdout="caf\u00e9\n")], SETTINGS)
    assert found["outcome"] == Outcome.WRONG_ANSWER
    assert "caf\ufffd" in found["diagnostics"]
