"""The spawner: a small process that makes boxes, so that the big one that judges never forks.

It is run as `PYTHON - FD FOLDER`, with `guards`, `interpreter`, this and the programs in `function`
as its text on standard input, and needs the standard library alone. FD is a SOCK_SEQPACKET socket,
whose end ends the spawner and every box. Each message asks for one box: it is the most processes
and threads that the box may have at once, and brings file descriptors: the request (a file of
marshal's format 2), the end of a pipe for the box's status line, and those that the request names
by their place. The answer is a pidfd of the box's first process, or a line that says what failed.
The spawner reads nothing of what a request brings, so that no program finds an earlier one's in the
memory that it inherits.

A box has a first process, which tells how the program ended, and the program, which makes its own
folder. With namespaces (FOLDER is empty, and the spawner may mount) the first process is PID 1 of
the box: with it, all of the box ends. Without them the box is a new folder in FOLDER, and the first
process adopts and kills whatever the program leaves behind; SIGTERM makes it end the program.

What a box costs is mostly the pages that its two processes write to and so copy: they do little,
with few objects, and by C calls where Python's own would do more.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import marshal
import math
import os
import resource
import signal
import socket
import stat
import sys
from typing import Any, NoReturn

from haloforge.verify.guards import (
    PR_SET_CHILD_SUBREAPER,
    bind_to_parent,
    call,
    drop_capabilities,
    install_filter,
    libc,
    prctl,
    restrict,
    syscall,
)
from haloforge.verify.interpreter import Program, finish, hide, python

BOX = "/box"
READY = b"ready"
MOST_FDS = 250
COUNT_EVERY_S = 0.02
HIGH_FD = 512  # above every descriptor that is given to a program
PRELOADED = (
    "bisect collections copy datetime functools heapq itertools math operator random re string "
    "threading time typing"
)

# From the kernel's headers.
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE_PIDFD, CLONE_NEWNS, CLONE_NEWIPC = 0x1000, 0x20000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
SIG_DFL, SIG_IGN, SIG_SETMASK, NO_SIGNALS = 0, 1, 2, bytes(128)
SIGKILL, SIGPIPE, SIGTERM, SIGCHLD, SIGXFSZ = 9, 13, 15, 17, 25


def main(codes: list[int]) -> Program:
    """Serve. Returns in Python programs alone, what to run; `codes` is for how they end."""
    atexit.register(finish, codes)  # the first to be registered is the last to run
    return serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])


def serve(channel: socket.socket, shared: str) -> Program:
    """Make boxes until the host is gone. Returns in a box alone, what Python program to run."""
    os.umask(0o022)
    del os.environ["LD_BIND_NOW"]
    libc.signal(SIGCHLD, SIG_IGN)  # boxes are reaped by themselves
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT, signal.SIGTERM})
    for name in PRELOADED.split():
        __import__(name)
    hide()
    gc.collect()
    gc.freeze()
    flags = SIGCHLD | CLONE_PIDFD
    if not shared:
        flags |= CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC
    clone, spawner, pidfd, number = CLONE[os.uname().machine], os.getpid(), ctypes.c_int(), 0
    socket.send_fds(channel, [READY], [os.pidfd_open(spawner)])
    while True:
        message, fds, *_ = socket.recv_fds(channel, 16, MOST_FDS, socket.MSG_CMSG_CLOEXEC)
        if not message:
            end(shared)
        number += 1
        own = f"{shared}/{number}" if shared else BOX
        try:
            if shared:
                os.mkdir(own, 0o700)
                os.chdir(own)  # by which the host finds it, from the first moment of the box on
            child = syscall(clone, flags, 0, ctypes.addressof(pidfd))
        except OSError as error:
            channel.send(str(error).encode())
        else:
            if child == 0:
                channel.close()
                return box(fds, own, int(message), spawner if shared else 0)
            socket.send_fds(channel, [READY], [pidfd.value])
            os.close(pidfd.value)
        for fd in fds:
            os.close(fd)


def end(shared: str) -> NoReturn:
    """End the spawner and its boxes; those with namespaces end with it."""
    if shared:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)  # for all of them, since SIGCHLD is ignored
        libc.signal(SIGCHLD, SIG_DFL)
        remove(shared)
    os._exit(0)


def box(fds: list[int], own: str, most: int, spawner: int) -> Program:
    """The first process of a box. Returns in its program alone, which is another process.

    `spawner` is the PID of its parent, 0 with namespaces.
    """
    try:
        libc.signal(SIGCHLD, SIG_DFL)
        if spawner:
            bind_to_parent(spawner, SIGTERM)
            prctl(PR_SET_CHILD_SUBREAPER, 1)
        failure, failure_end = os.pipe()
        first, program = os.getpid(), call("fork")
    except OSError as error:
        tell(fds[1], str(error).encode())
    if program:
        for fd in (fds[0], *fds[2:], failure_end):  # a pipe that we held would not end
            os.close(fd)
        watch(program, failure, fds[1], own, most if spawner else 0)
    return enter(fds, own, first if spawner else 0, failure_end)


def watch(program: int, failure: int, status: int, own: str, most: int) -> NoReturn:
    """Wait for the program, end all that it leaves, and tell how it ended and what it took.

    `most` is 0 with namespaces, which count processes, and end with this one.
    """
    told = crowded = False
    counting = bool(most)

    def stop(*_: Any) -> None:
        nonlocal told
        told = True
        kill_group(program)

    def count(*_: Any) -> None:
        nonlocal crowded
        if not counting:
            return
        running = descendants(os.getpid(), most)
        if len(running) > most or sum(map(num_threads, running)) > most:
            crowded = True
            kill_group(program)
        # No interval timer: a count that takes longer than that would interrupt itself for ever.
        signal.setitimer(signal.ITIMER_REAL, COUNT_EVERY_S)

    try:
        if most:
            signal.signal(signal.SIGTERM, stop)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            signal.signal(signal.SIGALRM, count)
            signal.setitimer(signal.ITIMER_REAL, COUNT_EVERY_S)
            os.waitid(os.P_PID, program, os.WEXITED | os.WNOWAIT)
            counting = False
            kill_group(program)  # before it is reaped, so that its number is still its own
        ended = 0
        while ended != program:  # orphans are reaped too
            ended, code, usage = os.wait4(-1, 0)
        failed, full = os.read(failure, 4096), False
        if most:
            end_descendants()
            remove(own)
        else:
            space = os.statvfs(own)
            full = space.f_bfree == 0 or space.f_ffree == 0
    except OSError as error:
        failed = str(error).encode()
    if failed:
        tell(status, failed)
    ended = os.waitstatus_to_exitcode(code)
    cpu_ms = (usage.ru_utime + usage.ru_stime) * 1000
    line = b'{"code": %d, "max_rss": %d, "cpu_ms": %.3f, "full": %d, "told": %d, "crowded": %d}'
    tell(status, line % (ended, usage.ru_maxrss * 1024, cpu_ms, full, told, crowded))


def tell(status: int, line: bytes) -> NoReturn:
    """End a box's first process with its status line: JSON, or what failed."""
    os.write(status, line + b"\n")
    os._exit(0)


def descendants(pid: int, most: float = math.inf) -> list[int]:
    """The processes under `pid`, parents first; of more than `most`, some more than that."""
    found = [pid]
    for each in found:  # grows meanwhile
        if len(found) > most + 1:
            break
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):
                with open(f"/proc/{each}/task/{task}/children") as file:
                    found += map(int, file.read().split())
    return found[1:]


def num_threads(pid: int) -> int:
    """The threads of a process."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))
    return 0


def kill_group(program: int) -> None:
    """Kill what the program started, all at once: a fork bomb is faster than a loop."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(program, signal.SIGKILL)  # had it no time to lead a group


def end_descendants() -> None:
    """Kill every process under this one. Orphans become its children, so none is out of reach.

    All that have ended are reaped before it looks again: a fork bomb leaves thousands.
    """
    while True:
        killed = 0
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        try:
            os.waitpid(-1, 0 if killed else os.WNOHANG)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def remove(folder: str) -> None:
    """Remove a folder, whatever is in it: no permissions, or more levels than we can descend."""
    try:
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)
    except OSError:
        for command in (("chmod", "-R", "u+rwx"), ("rm", "-rf")):
            os.waitpid(os.posix_spawnp(command[0], (*command, folder), os.environ), 0)


def enter(fds: list[int], own: str, first: int, failure: int) -> Program:
    """Make the box's folder and become its program, behind its guards.

    Returns in Python programs, what to run. `first` is the PID of the parent, 0 with namespaces.
    """
    try:
        request = marshal.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
        if first:
            bind_to_parent(first, SIGKILL)
        else:
            mount_box(request, fds)
            call("unshare", CLONE_NEWUSER)  # so that each box has its own count of processes
        write_files(request["files"], fds, own)
        os.chdir(own)
        os.setsid()
        failure = give_streams(request["streams"], fds, failure)
        drop_capabilities()
        if request["landlock"]:
            restrict(own, **request["landlock"])
        for key, value in request["rlimits"].items():
            resource.setrlimit(key, (value, value))
        call("sigprocmask", SIG_SETMASK, NO_SIGNALS, None)
        os.environ["HOME"] = os.environ["TMPDIR"] = own
        if request["seccomp"]:
            install_filter(request["seccomp"])
        if request["python"] is None:
            execute(request["argv"], request["files"])
        os.close(failure)
    except BaseException as error:
        os.write(failure, repr(error).encode())
        os._exit(1)
    return python(request["argv"], request["python"])


def mount_box(request: dict[str, Any], fds: list[int]) -> None:
    """A new tmpfs as the box's folder. What else of it a box needs is under /proc, read-only."""
    options = f"mode=0755,size={request['size']},nr_inodes={request['inodes']}"
    safe = MS_NOSUID | MS_NODEV
    call("mount", b"box", b"/proc", b"tmpfs", safe, options.encode())
    os.mkdir("/proc/box")
    if stat.S_ISREG(os.fstat(fds[request["streams"][0]]).st_mode):
        write_files({"stdin": request["streams"][0]}, fds, "/proc")  # where /dev/stdin leads
    if request["executable"]:
        os.mkdir("/proc/self")
        os.symlink(request["executable"], "/proc/self/exe")
    call("mount", b"/proc/box", BOX.encode(), None, MS_BIND, None)
    call("mount", None, b"/proc", None, MS_REMOUNT | MS_BIND | MS_RDONLY | safe, None)


def write_files(files: dict[str, int], fds: list[int], folder: str) -> None:
    """Write copies. The originals' offsets stay: other boxes may be at them."""
    for name, place in files.items():
        copy = os.open(f"{folder}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o755)
        offset, size = 0, os.fstat(fds[place]).st_size
        while offset < size:
            offset += os.sendfile(copy, fds[place], offset, size - offset)
        os.close(copy)


def give_streams(streams: dict[int, int], fds: list[int], failure: int) -> int:
    """Leave the program its streams and `failure`, whose new number is returned, and no more."""
    failure = fcntl.fcntl(failure, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    high = {
        target: fcntl.fcntl(fds[place], fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
        for target, place in streams.items()
    }
    os.closerange(3, HIGH_FD)
    for target, fd in high.items():
        os.dup2(fd, target)
        os.close(fd)
    return failure


def execute(argv: list[str], files: dict[str, int]) -> None:
    """Replace this process by a command. Raises OSError where it is not of the box's own files."""
    for number in (SIGPIPE, SIGXFSZ):  # Python ignores them
        libc.signal(number, SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        if argv[0].lstrip("./") not in files:
            raise
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())  # as a shell says it
        os._exit(126)
