"""The system-call filter of a box, assembled as classic BPF for x86_64 and aarch64.

It denies sockets, new namespaces, tracing, and memory that no resource limit counts (memfd, System
V shared memory). For programs under test it also denies new processes, so that the address-space
limit of one process bounds the whole run; threads are allowed.
"""

import errno
import platform
import struct

from haloforge.errors import ResourceError

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers from Linux' asm/unistd_64.h and asm-generic/unistd.h: x86_64, aarch64.
DENIED = {
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
FORKS = {"x86_64": (57, 58), "aarch64": ()}  # fork, vfork
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
CLONE_THREAD = 0x00010000
# NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
CLONE_NEW = 0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x70000000
X32_BIT = 0x40000000

LOAD, JEQ, JGE, JSET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ARCH_OFFSET, NR_OFFSET, ARG0_OFFSET = 4, 0, 16  # of struct seccomp_data, little endian
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def _op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("<HBBI", code, jt, jf, k)


def _deny(nr: int, error: int) -> bytes:
    return _op(JEQ, nr, 0, 1) + _op(RETURN, ERRNO | error)


def seccomp_filter(single_process: bool, machine: str | None = None) -> bytes:
    """The BPF program for `bwrap --seccomp`: an array of `struct sock_filter`.

    Raises ResourceError on a machine other than x86_64 and aarch64.
    """
    machine = machine or platform.machine()
    if machine not in AUDIT_ARCH:
        raise ResourceError(f"the sandbox runs on x86_64 and aarch64, not on {machine}")
    column = 0 if machine == "x86_64" else 1
    program = _op(LOAD, ARCH_OFFSET) + _op(JEQ, AUDIT_ARCH[machine], 1, 0) + _op(RETURN, KILL)
    program += _op(LOAD, NR_OFFSET)
    if machine == "x86_64":  # the x32 ABI has the same calls under other numbers
        program += _op(JGE, X32_BIT, 0, 1) + _op(RETURN, ERRNO | errno.ENOSYS)
    for numbers in DENIED.values():
        program += _deny(numbers[column], errno.EPERM)
    # clone3 keeps its flags in memory, out of a filter's sight; libc then falls back to clone.
    program += _deny(CLONE3, errno.ENOSYS)
    if single_process:
        for number in FORKS[machine]:
            program += _deny(number, errno.EPERM)
    program += _op(JEQ, CLONE[machine], 1, 0) + _op(RETURN, ALLOW)
    program += (
        _op(LOAD, ARG0_OFFSET) + _op(JSET, CLONE_NEW, 0, 1) + _op(RETURN, ERRNO | errno.EPERM)
    )
    if single_process:
        program += _op(JSET, CLONE_THREAD, 1, 0) + _op(RETURN, ERRNO | errno.EPERM)
    return program + _op(RETURN, ALLOW)
