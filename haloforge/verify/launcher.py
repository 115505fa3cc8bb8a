"""The host's hold on a spawner: starts it, asks it for boxes, and ends it."""

import contextlib
import inspect
import os
import shutil
import signal
import socket
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from types import ModuleType

from haloforge.errors import InfraError
from haloforge.verify import guards, interpreter, spawner
from haloforge.verify.function import candidate, encoding, proxies, tester
from haloforge.verify.process import sealed_file
from haloforge.verify.toolchains import PYTHON

WITHIN_S = 30.0
TEXT = """
import sys, types
for name, text in {texts!r}:
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(text, "<stdin>", "exec"), vars(module))
codes, note = [], sys.modules[{interpreter!r}].note
try:
    exec(*module.main(codes))
except BaseException as error:
    note(codes, error)
    raise
note(codes, None)
"""
"""What the spawner's interpreter runs: its modules, and, in a box, a Python program, from here so
that what an interpreter does at a program's end is done as ever."""


def script(module: ModuleType, *arguments: str) -> tuple[str, ...]:
    """The command that runs `main` of one of the modules that a spawner has ready."""
    return (*PYTHON, "-m", module.__name__, *arguments)


class Launcher:
    """A running spawner, one thread's at a time.

    It is started by `command` followed by its own, in `environment`; without namespaces its boxes
    are in `folder`, which goes with it. Raises InfraError when it does not start.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: str = ""
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(WITHIN_S)
        parts = (encoding, candidate, proxies, tester, guards, interpreter, spawner)
        texts = [(part.__name__, inspect.getsource(part)) for part in parts]
        script = sealed_file(
            "spawner", TEXT.format(texts=texts, interpreter=interpreter.__name__).encode()
        )
        try:
            # Without preexec_fn this is vfork: a big parent costs nothing.
            self._process = subprocess.Popen(
                [*command, *PYTHON, "-", str(theirs.fileno()), folder],
                stdin=script,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise InfraError(f"cannot start {command[0]}: {error}") from error
        finally:
            theirs.close()
            os.close(script)
        self._channel = ours
        self.alive = True
        """False when it has died: it makes no more boxes."""
        try:
            pidfd = self._answer()
        except InfraError:
            with ours, self._process:
                self._process.kill()
            raise
        self.close = weakref.finalize(self, _end, os.getpid(), ours, self._process, pidfd, folder)
        """Ends the spawner and all of its boxes."""

    def launch(self, most: int, fds: Sequence[int]) -> int:
        """A pidfd of the first process of a new box, made as `fds` say (see the spawner).

        `most` is how many processes and threads it may have. Raises InfraError when there is none.
        """
        try:
            socket.send_fds(self._channel, [b"%d" % most], fds)
        except OSError:
            self.alive = False  # what it said last is with its answer
        return self._answer()

    def _answer(self) -> int:
        try:
            text, fds, *_ = socket.recv_fds(self._channel, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            self.alive = False
            raise InfraError(f"the box failed: no answer from the spawner ({error})") from error
        if fds:
            return fds[0]
        if not text:
            self.alive = False
            text = self._last_words()
        raise InfraError(f"the box failed: {text.decode(errors='replace')}")

    def _last_words(self) -> bytes:
        try:
            words = self._process.communicate(timeout=WITHIN_S)[1].strip()
        except subprocess.TimeoutExpired:
            return b"the spawner hung up"
        return words.splitlines()[-1] if words else b"the spawner died"


def _end(
    owner: int, channel: socket.socket, process: "subprocess.Popen[bytes]", pidfd: int, folder: str
) -> None:
    channel.close()
    if os.getpid() != owner:  # a copy of the host process, made by a fork
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(WITHIN_S)
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    process.wait()
    if process.stderr:
        process.stderr.close()
    if folder:  # had the spawner no time for it
        shutil.rmtree(folder, ignore_errors=True)
