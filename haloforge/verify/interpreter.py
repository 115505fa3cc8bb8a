"""How the spawner's own interpreter, which is warm, runs a Python program.

Part of the spawner, which runs outside this package: it needs the standard library alone.
"""

from __future__ import annotations

import _thread
import builtins
import gc
import os
import sys
import types
from importlib.machinery import BuiltinImporter, SourceFileLoader
from typing import Any

KEPT = {"__builtins__", "codes", "note"}  # of the names that the interpreter has of us
OWN: dict[str, types.ModuleType] = {}
"""Our own modules, which no program finds by their names."""
Program = tuple[Any, dict[str, Any]]
"""Its code, and its globals."""


def hide() -> None:
    """Take our own modules and names away from where programs look for theirs."""
    for name in [each for each in sys.modules if each.startswith("haloforge.")]:
        OWN[name] = sys.modules.pop(name)
    names = vars(sys.modules["__main__"])
    for name in set(names) - KEPT:
        del names[name]


def python(argv: list[str], arguments: list[str]) -> Program:
    """What `argv`, of which `arguments` follow the interpreter's options, would run.

    The interpreter is made to look as `python -I -B -X utf8` does when it starts. `-m` is for our
    own modules, whose `main` is called.
    """
    module = types.ModuleType("__main__")
    source: Any
    loader: Any
    if arguments[0] == "-c":
        name, source, loader = "<string>", arguments[1], BuiltinImporter
        arguments = ["-c", *arguments[2:]]
    elif arguments[0] == "-m":
        module = OWN[arguments[1]]
        name, source, loader = module.__name__, "main()", None
        arguments = arguments[1:]
    else:
        name = module.__file__ = os.path.join(os.getcwd(), arguments[0])
        with open(name, "rb") as file:
            source = file.read()
        loader = SourceFileLoader("__main__", name)
        vars(module)["__cached__"] = None
    vars(module).update(__builtins__=builtins, __loader__=loader, __annotations__={})
    sys.modules["random"].seed()
    sys.argv, sys.orig_argv = arguments, argv
    for fd, stream in enumerate(("stdin", "stdout", "stderr")):
        mode, errors = "w" if fd else "r", "backslashreplace" if fd == 2 else "surrogateescape"
        text: Any = os.fdopen(fd, mode, -1, "utf-8", errors, "\n", closefd=False)
        text.reconfigure(line_buffering=stream == "stderr")
        text.mode, text.buffer.raw.name = mode, f"<{stream}>"
        setattr(sys, stream, text)
        setattr(sys, f"__{stream}__", text)
    sys.modules["__main__"] = module
    return compile(source, name, "exec", dont_inherit=True), vars(module)


def note(codes: list[int], error: BaseException | None) -> None:
    """Take down the status that a program ends with, where that is plain.

    Hooks for its uncaught errors are kept from seeing the frame that ran it.
    """
    if error is None:
        codes.append(0)
    elif isinstance(error, SystemExit):
        if error.code is None or (type(error.code) is int and 0 <= error.code < 256):
            codes.append(error.code or 0)
    elif not isinstance(error, KeyboardInterrupt):
        codes.append(1)
    hook = sys.excepthook

    def show(kind: Any, error: Any, trace: Any) -> None:
        while trace and trace.tb_frame.f_code.co_filename == "<stdin>":
            trace = trace.tb_next
        hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = show


def finish(codes: list[int]) -> None:
    """End a Python program here, after its threads and all else that it registered for its end.

    The interpreter would go on to free whatever there is, and copy the pages for it. What of that
    a program can see is done: what it leaves is finalized, and streams are flushed.
    """
    if not codes or _thread._count():  # no plain end, or threads that must not see all this
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        errors = "last_exc", "last_type", "last_value", "last_traceback"
        vars(sys).update(dict.fromkeys(errors))  # they hold what the program had
        del sys.modules["__main__"]
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        return  # the interpreter meets it again, and says so
    os._exit(codes[0])
