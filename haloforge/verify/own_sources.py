"""Finding a verifier of the user's own: a class in a file, an installed entry point, a command.

What is found travels as content, not as a path, so that the actors of any machine can load it.
"""

import functools
import importlib
import importlib.metadata
import inspect
import shlex
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haloforge.errors import InputError
from haloforge.schema import digest
from haloforge.verify.toolchains import COMPILER_PATH

GROUP = "haloforge.verifiers"
COMMAND = "cmd:"
FILE = "{file}"
SHOWN = ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/")  # what a box sees of the host


@dataclass(frozen=True)
class OwnSource:
    """A verifier of the user's own. `digest` is of all its content."""

    label: str
    digest: str
    file: str | None = None
    """Source text of a Python file that defines `cls`; None for an entry point or a command."""
    cls: str = ""
    """The class in `file`, or the name of an entry point."""
    argv: tuple[str, ...] = ()
    """A command, FILE where the name of the answer's source goes; empty for a class."""
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    """What the command needs beside it in its box."""

    @property
    def name(self) -> str:
        """How verdicts and runs name it: a change of its content changes the name."""
        return f"{self.label} {self.digest}"

    def load(self) -> Callable[[], Any]:
        """The class. Raises InputError where it is none, or has no `judge` of three arguments."""
        found = _entry_point(self.cls) if self.file is None else _class_of_file(self, self.file)
        if not inspect.isclass(found):
            raise InputError(f"verifier {self.label}: {self.cls} is no class")
        try:
            inspect.signature(found).bind()
            judge: Any = getattr(found, "judge", None)
            inspect.signature(judge).bind(None, "code", "problem", "sandbox")
        except TypeError:
            raise InputError(
                f"verifier {self.label}: expected a class made without arguments, with a method "
                "judge(self, code, problem, sandbox)"
            ) from None
        return found


@functools.cache  # what a run began with is what it ends with
def find_own(name: str) -> OwnSource | None:
    """The verifier that `name` gives: `path.py:Class`, `cmd:COMMAND` or an entry point's name.

    None where it is none of these. Raises InputError saying what is wrong with it.
    """
    if name.startswith(COMMAND):
        return _command(name)
    path, _, cls = name.rpartition(":")
    if name.endswith(".py"):
        raise InputError(f"verifier {name}: name the class too, as in {name}:Class")
    if path.endswith(".py"):
        text = _read(Path(path), name).decode(errors="replace")
        source = OwnSource(f"{Path(path).name}:{cls}", digest(text, cls), file=text, cls=cls)
    elif name in installed():
        source = OwnSource(name, _package_digest(installed()[name].module), cls=name)
    else:
        return None
    source.load()
    return source


def installed() -> dict[str, importlib.metadata.EntryPoint]:
    """The verifiers that installed packages bring, by name."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}


def _class_of_file(source: OwnSource, text: str) -> Any:
    # A module of its own: dataclasses and annotations look their module up.
    module = types.ModuleType(f"haloforge_own_{source.digest}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, source.label.partition(":")[0], "exec"), module.__dict__)
    except Exception as error:  # the user's file may raise anything
        raise InputError(f"verifier {source.label}: {_told(error)}") from error
    if source.cls not in module.__dict__:
        raise InputError(f"verifier {source.label}: no class '{source.cls}' in that file")
    return module.__dict__[source.cls]


def _entry_point(name: str) -> Any:
    try:
        return installed()[name].load()
    except KeyError:
        raise InputError(f"verifier {name}: its package is not installed here") from None
    except Exception as error:  # the package may raise anything
        raise InputError(f"verifier {name}: {_told(error)}") from error


def _package_digest(module: str) -> str:
    """Of every Python file of the package, or of the module that is its own package."""
    top = importlib.import_module(module.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", [])]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    files = files or [Path(str(top.__file__))]
    return digest(*(path.read_text(errors="replace") for path in files))


def _command(name: str) -> OwnSource:
    """The command with the host's files that it names, each to be put beside it in its box."""
    try:
        words = shlex.split(name.removeprefix(COMMAND))
    except ValueError as error:
        raise InputError(f"verifier {name}: {error}") from None
    if not any(FILE in word for word in words):
        raise InputError(f"verifier {name}: {FILE} must stand where the answer's source goes")
    argv: list[str] = []
    files: dict[str, bytes] = {}
    for word in words:
        path = Path(word)
        if word.startswith(SHOWN) or not path.is_file():
            argv.append(word)
            continue
        if path.name in files:
            raise InputError(f"verifier {name}: two files are called {path.name}")
        files[path.name] = _read(path, name)
        argv.append(f"./{path.name}")
    if argv[0].removeprefix("./") not in files and not shutil.which(argv[0], path=COMPILER_PATH):
        raise InputError(f"verifier {name}: no such file or command: {words[0]}")
    content = [part for item in sorted(files.items()) for part in (item[0], item[1].hex())]
    label = COMMAND + " ".join(argv)  # without the paths of this machine
    return OwnSource(label, digest(*argv, *content), argv=tuple(argv), files=files)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"verifier {name}: {path}: {error.strerror}") from None


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".splitlines()[:1])
