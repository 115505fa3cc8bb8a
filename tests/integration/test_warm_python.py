"""A Python program that the spawner's interpreter runs is as one that a new interpreter runs."""

import os
from pathlib import Path

import pytest

from haloforge.verify.process import RunResult
from haloforge.verify.sandbox import BUBBLEWRAP
from haloforge.verify.spawner import descendants
from haloforge.verify.toolchains import PYTHON, box_python
from tests.boxes import LIMITS, boxed, sandbox

COLD = (box_python(), "-I", "-X", "utf8", "-B")  # the same options, which the spawner leaves alone

# All of these print, or end, in a way that shows how the interpreter is.
PROGRAMS: dict[str, str | bytes] = {
    "plain": "print('hello')",
    "empty": "",
    "names": "print(sorted(globals()), __name__, __file__, __doc__, __package__, __spec__)",
    "docstring": "'about'\nprint(__doc__)",
    "builtins": "print(__builtins__, type(__loader__).__name__, __annotations__)",
    "annotations": "x: int = 1\nprint(__annotations__)",
    "main": "import sys, __main__; print(__main__.__file__, sys.modules['__main__'] is __main__)",
    "arguments": "import sys; print(sys.argv, sys.flags, sys.path, sys.executable, sys._xoptions)",
    "hooks": "import sys; print(sys.displayhook, sys.getrecursionlimit(), sys.gettrace())",
    "environment": "import os; print({k: v for k, v in os.environ.items() if k != 'LC_CTYPE'})",
    "streams": "import sys\n"
    "for s in (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__):\n"
    "    print(s, s.mode, s.encoding, s.errors, s.newlines, s.line_buffering, s.write_through,"
    " s.buffer, s.buffer.raw, s.fileno(), s.isatty(), s.seekable(), s.buffer.raw.closefd)",
    "input": "print(int(input()) + int(input()))\nimport sys; print(repr(sys.stdin.read()))",
    "lines": "import sys\nprint([line for line in sys.stdin])",
    "bytes in": "import sys; print(sys.stdin.buffer.read())",
    "input by number": "import os; print(os.read(0, 100)); print(open(0).read())",
    "prompt": "print(input('? '))",
    "no more input": "while True: print(input())",
    "not UTF-8": "import sys\nsys.stdout.write('\\udcff\\n'); print(ascii(sys.stdin.readline()))",
    "no such character": "print('\\ud800')",
    "bytes out": "import sys; sys.stdout.buffer.write(b'\\xff\\x00'); print('x')",
    "output by number": "print(1); open(1, 'w', closefd=False).write('2')",
    "no newline": "print('x', end='')",
    "error stream": "import sys; print('a'); print('b', file=sys.stderr)",
    "closed output": "import sys; print('a'); sys.stdout.close()",
    "output closed below": "import os; print('a'); os.close(1)",
    "own output": "import io, sys; sys.stdout = io.StringIO(); print('lost')",
    "no output stream": "import sys; sys.stdout = None; print('lost')",
    "broken output": "class Broken:\n    def write(self, text): pass\n    def flush(self): 1 / 0\n"
    "import sys; sys.stdout = Broken()",
    "exit 0": "import sys; print('a'); sys.exit(0)",
    "exit 3": "import sys; print('a'); sys.exit(3)",
    "exit 256": "import sys; sys.exit(256)",
    "exit -1": "import sys; sys.exit(-1)",
    "exit with much": "import sys; sys.exit(1 << 80)",
    "exit with text": "import sys; print('a'); sys.exit('why')",
    "exit with True": "raise SystemExit(True)",
    "exit with a float": "raise SystemExit(2.0)",
    "exit()": "print('a'); exit()",
    "quit(2)": "quit(2)",
    "exit without more": "import os; print('lost'); os._exit(5)",
    "abort": "import os; print('lost'); os.abort()",
    "interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "caught interrupt": "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n"
    "except KeyboardInterrupt:\n    print('caught')",
    "signals": "import signal\nfor n in range(1, 32):\n    print(n, signal.getsignal(n))\n"
    "print(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    "error": "def f():\n    return 1 / 0\nprint('a')\nf()",
    "chained error": "try:\n    1 / 0\nexcept ArithmeticError as e:\n    raise OSError(1) from e",
    "caught error": "import traceback\ntry:\n    1 / 0\nexcept ArithmeticError:\n"
    "    traceback.print_exc()",
    "own hook": "import sys\nsys.excepthook = lambda *a: print(a[0], a[2].tb_lineno)\n1 / 0",
    "group": "raise ExceptionGroup('all', [ValueError(1), TypeError(2)])",
    "syntax error": "print('a')\ndef (",
    "declared encoding": b"# coding: latin-1\nprint('\xe9')",
    "byte order mark": b"\xef\xbb\xbfprint('a')",
    "windows lines": b"print('a')\r\nprint('b')\r\n",
    "future": "from __future__ import annotations\ndef f(x: no): pass\nprint(f.__annotations__)",
    "no future": "def f(x: int): pass\nprint(f.__annotations__)",
    "warning": "import warnings; warnings.warn('careful'); print(1 is 1)",
    "deep recursion": "def f(n): return f(n + 1)\nf(0)",
    "recursion error": "def f(n):\n    try: return f(n + 1)\n    except RecursionError: return n\n"
    "print(f(0) > 950)",
    "deeper recursion": "import sys\nsys.setrecursionlimit(10**6)\n"
    "def f(n): return n and 1 + f(n - 1)\nprint(f(50_000))",
    "big stack in a thread": "import sys, threading\nsys.setrecursionlimit(10**6)\n"
    "threading.stack_size(128 << 20)\ndef f(n): return n and 1 + f(n - 1)\n"
    "t = threading.Thread(target=lambda: print(f(50_000)))\nt.start(); t.join()",
    "thread": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start(); print('first')",
    "daemon thread": "import threading, time\nthreading.Thread(target=lambda: time.sleep(60),"
    " daemon=True).start(); print('first')",
    "error in a thread": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='t')\n"
    "t.start(); t.join(); print('on', threading.main_thread().name, threading.active_count())",
    "pool": "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(3) as pool: print(sum(pool.map(abs, range(9))))",
    "at exit": "import atexit\nfor n in 1, 2: atexit.register(print, n)\nprint('first')",
    "error at exit": "import atexit\natexit.register(lambda: 1 / 0)\nprint('first')",
    "exit at exit": "import atexit, sys\natexit.register(lambda: sys.exit(4))\nprint('first')",
    "finalizer": "class A:\n    def __del__(self): print('gone', NAME)\nNAME = 'a'; kept = A()",
    "finalizer of a cycle": "class A:\n    def __del__(self): print('gone')\na = A(); a.a = a",
    "finalizer after an error": "class A:\n    def __del__(self): print('gone')\na = A()\n1 / 0",
    "file left open": "import os\nkept = open(os.dup(1), 'w'); kept.write('kept')",
    "buffer written at exit": "import atexit, io, os, sys\nbuffer = io.StringIO()\n"
    "sys.stdout = buffer\natexit.register(lambda: os.write(1, buffer.getvalue().encode()))\n"
    "print('kept')",
    "fast output": "import os, sys\nfrom io import BytesIO, IOBase\nclass FastIO(IOBase):\n"
    "    newlines = 0\n    def __init__(self, file):\n        self._fd = file.fileno()\n"
    "        self.buffer = BytesIO(); self.write = self.buffer.write\n"
    "    def flush(self): os.write(self._fd, self.buffer.getvalue()); self.buffer.truncate(0)\n"
    "class Wrapper(IOBase):\n    def __init__(self, file):\n        self.buffer = FastIO(file)\n"
    "        self.flush = self.buffer.flush\n"
    "        self.write = lambda s: self.buffer.write(s.encode())\n"
    "sys.stdout = Wrapper(sys.stdout)\nprint('quick')",
    "generator left open": "def g():\n    try: yield 1\n    finally: print('closed')\n"
    "kept = g(); next(kept)",
    "weak reference": "import weakref\nclass A: pass\na = A(); weakref.finalize(a, print, 'gone')",
    "logging": "import logging; logging.basicConfig(); logging.warning('careful')",
    "source of itself": "import inspect\ndef f(): pass\nprint(inspect.getsource(f))",
    "pickle": "import pickle\nclass A: pass\nprint(pickle.loads(pickle.dumps(A())).__class__)",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(1))",
    "enum": "import enum\nprint(list(enum.Enum('A', 'x y')), enum.Enum('A', 'x y').__module__)",
    "asyncio": "import asyncio\nasync def f(): return 3\nprint(asyncio.run(f()))",
    "decimal": "from decimal import *; getcontext().prec = 5; print(Decimal(1) / 3)",
    "random is seeded": "import random; random.seed(1); print(random.random())",
    "dynamic code": "exec('x = 1'); print(eval('x + 1'), 'x' in globals())",
    "import of itself": "print(__import__('sys').modules['__main__'].__dict__ is globals())",
    "frames": "import sys; print(sys._getframe().f_globals is globals())",
    "memory": "x = bytearray(1 << 30)",
    "files": "print(open('main.py').read())",
}


def outcome(result: RunResult) -> tuple[object, ...]:
    lines = result.stderr.splitlines()
    same = [line for line in lines if b" at 0x" not in line and b"more times]" not in line]
    return result.stdout, same, result.exit_code, result.signal


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_with_a_new_interpreter(name: str) -> None:
    box = sandbox(BUBBLEWRAP)
    source = PROGRAMS[name]
    files = {"main.py": source if isinstance(source, bytes) else source.encode()}
    stdin = b"1\n2\r\n\xff3\r"
    warm = box.run([*PYTHON, "main.py"], files, stdin, LIMITS)
    cold = box.run([*COLD, "main.py"], files, stdin, LIMITS)
    assert outcome(warm) == outcome(cold)


@pytest.mark.parametrize(
    "code", ["print(__name__, sorted(globals()))", "1 / 0", "def (", "exit(3)"]
)
def test_code_on_the_command_line(code: str) -> None:
    box = sandbox(BUBBLEWRAP)
    warm = box.run([*PYTHON, "-c", f"import sys; print(sys.argv)\n{code}", "a"], {}, b"", LIMITS)
    cold = box.run([*COLD, "-c", f"import sys; print(sys.argv)\n{code}", "a"], {}, b"", LIMITS)
    assert outcome(warm) == outcome(cold)


def test_programs_draw_other_numbers() -> None:
    code = "import random, uuid; print(random.random(), uuid.uuid4())"
    assert boxed(sandbox(BUBBLEWRAP), code).stdout != boxed(sandbox(BUBBLEWRAP), code).stdout


def test_a_program_finds_nothing_of_us_or_of_others() -> None:
    box = sandbox(BUBBLEWRAP)
    marker = f"earlier-{os.getpid()}"
    assert box.run([*PYTHON, "-c", f"print({marker!r})"], {}, marker.encode(), LIMITS).clean
    code = """
        import gc, sys
        names = [name for name in sys.modules if name.startswith("haloforge")]
        frame = sys._getframe()
        while frame.f_back:
            frame = frame.f_back
        kept = [text for text in gc.get_objects() if isinstance(text, dict) and "restrict" in text]
        print(names, sorted(frame.f_globals), kept)
    """
    found = boxed(box, code).stdout.decode()
    assert found == "[] ['__builtins__', 'codes', 'error', 'note'] []\n".replace("'error', ", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read another user's memory")
def test_the_spawner_keeps_nothing_of_a_request() -> None:
    box = sandbox(BUBBLEWRAP)
    marker = f"request-{os.getpid()}"
    for _ in range(3):
        argv = [*PYTHON, "-c", f"print({marker!r})", marker]
        assert box.run(argv, {marker: marker.encode()}, marker.encode(), LIMITS).clean
    assert box._launcher
    spawner = descendants(box._launcher._process.pid)[0]
    environment = 0
    with Path(f"/proc/{spawner}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{spawner}/maps").read_text().splitlines():
            span, access, *_, name = line.split(maxsplit=5)
            if "w" not in access or name.startswith("[v"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            memory.seek(start)
            content = memory.read(end - start)
            assert marker.encode() not in content
            environment += b"C.UTF-8" in content
    assert environment, "its memory was not read, so nothing was shown"
