"""What a process does to itself to become a program that is held: calls of the Linux kernel.

Part of the spawner, which runs outside this package: it needs the standard library alone.
"""

import ctypes
import os
import stat
import struct
from typing import Any

OWN_PID = 0x5E1F5E1F
"""Stands in a system-call filter for the PID of the program it binds; no real PID is as large."""

# From the kernel's headers. Landlock's calls have the same numbers on every machine.
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
CAPABILITY_VERSION_3, SECCOMP_MODE_FILTER = 0x20080522, 2
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ONLY_VERSION, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

libc: Any = ctypes.PyDLL(None, use_errno=True)  # it keeps the interpreter's lock over a fork
libc.capset.argtypes = [ctypes.c_char_p] * 2
libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.sigprocmask.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
libc.syscall.argtypes = [ctypes.c_long] * 5  # the number, and as many as we need
libc.syscall.restype = ctypes.c_long
libc.fork.argtypes = libc.unshare.argtypes = None  # found now, not in each box


def call(name: str, *arguments: Any) -> int:
    """What a function of the C library returns. Raises OSError where that is -1."""
    result: int = getattr(libc, name)(*arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def syscall(number: int, *arguments: int) -> int:
    """What a system call returns. Raises OSError where it fails."""
    return call("syscall", number, *arguments, *[0] * (4 - len(arguments)))


def prctl(option: int, value: int, more: int = 0) -> None:
    """Set one of the process's own properties. Raises OSError."""
    call("prctl", option, value, more, 0, 0)


def landlock_version() -> int:
    """The version of Landlock in this kernel; 0 where there is none."""
    try:
        return syscall(CREATE_RULESET, 0, 0, ONLY_VERSION)
    except OSError:
        return 0


def bind_to_parent(parent: int, number: int) -> None:
    """Ask for a signal at the parent's death. Raises OSError when it is dead."""
    prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise ProcessLookupError("its parent has died")


def drop_capabilities() -> None:
    """Give up every right beyond an ordinary user's, and that any program may have more."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    call("capset", struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24))


def restrict(
    own: str, own_writable: bool, readable: list[str], writable: list[str], abi: int
) -> None:
    """Allow reading and executing under `readable`, all under `writable`, and nothing else.

    Everything else is what Landlock's version `abi` knows of: files, TCP, signals and abstract
    sockets. Of a path that is not there nothing is allowed.
    """
    handled = (1 << 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)) - 1
    scopes = (handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    attributes = (ctypes.c_uint64 * 3)(*scopes)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = syscall(CREATE_RULESET, ctypes.addressof(attributes), size)
    access = dict.fromkeys([own, *readable], EXECUTE | READ_FILE | READ_DIR)
    access.update(dict.fromkeys([own, *writable] if own_writable else writable, handled))
    for path, allowed in access.items():
        try:
            fd = os.open(path, os.O_PATH)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            allowed &= OF_FILES & handled
        rule = (ctypes.c_uint64 * 2)(allowed, fd)  # struct landlock_path_beneath_attr
        syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.addressof(rule))
        os.close(fd)
    syscall(RESTRICT_SELF, ruleset)
    os.close(ruleset)


def install_filter(program: bytes) -> None:
    """Bind this process to a system-call filter, an array of `struct sock_filter`."""
    program = program.replace(struct.pack("I", OWN_PID), struct.pack("I", os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    header = ctypes.create_string_buffer(filters, len(filters))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))
