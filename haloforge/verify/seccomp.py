"""The system-call filter of a box, assembled as classic BPF for x86_64 and aarch64.

It denies sockets, new namespaces, tracing, memory that no resource limit counts (memfd, System V
shared memory), and signals, priorities, limits and CPUs of other processes. For programs under test
it also denies new processes, so that the address-space limit of one process bounds the whole run;
threads are allowed. Where no namespace hides the host's files it denies, too, what Landlock lets
pass: changing modes, owners, times and attributes of the user's files.
"""

import errno
import functools
import platform
import struct

from haloforge.errors import ResourceError
from haloforge.verify.guards import OWN_PID

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers from Linux' asm/unistd_64.h and asm-generic/unistd.h: x86_64, aarch64.
DENIED = {
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "syslog": (103, 116),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
# The first argument of these names a process, and may be the program's own PID alone.
SIGNALS = {
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
# Here 0 is the caller itself, and allowed too.
SCHEDULING = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}
SETPRIORITY, PRIO_PROCESS = (141, 140), 0
PRCTL, PR_SET_PDEATHSIG = (157, 167), 1  # by which a program ends with its box
# An owner of a pipe gets the signal of its reader's choice.
FCNTL, F_SETOWN, F_SETSIG, F_SETOWN_EX = (72, 25), 8, 10, 15
ABSENT = 0xFFFFFFFF  # the number of a call that a machine lacks
# What Landlock does not see: the user's files have more than contents. Linkers that set the mode of
# what they write are told that it was done.
METADATA = {
    "chmod": (90, ABSENT),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, ABSENT),
    "fchown": (93, 55),
    "lchown": (94, ABSENT),
    "fchownat": (260, 54),
    "utime": (132, ABSENT),
    "utimes": (235, ABSENT),
    "futimesat": (261, ABSENT),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
WITHOUT_NAMESPACES = {
    "truncate": (76, 45),  # not seen by the first versions of Landlock
    "setsid": (112, 157),  # the box is ended as one process group, which nothing may leave
    "setpgid": (109, 154),
}
OPEN, OPENAT, OPENAT2 = (2, ABSENT), (257, 56), (437, 437)
O_ACCMODE, O_TRUNC = 0x3, 0x200
FORKS = {"x86_64": (57, 58), "aarch64": ()}  # fork, vfork
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
CLONE_THREAD = 0x00010000
# NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
CLONE_NEW = 0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x70000000
X32_BIT = 0x40000000

LOAD, AND, JEQ, JGE, JSET, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
ARCH_OFFSET, NR_OFFSET, ARG_OFFSET, ARG_SIZE = 4, 0, 16, 8  # of struct seccomp_data, little endian
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def _op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("<HBBI", code, jt, jf, k)


def _argument(index: int) -> bytes:
    return _op(LOAD, ARG_OFFSET + index * ARG_SIZE)


def _return(error: int) -> bytes:
    return _op(RETURN, ERRNO | error)  # 0 is success without a deed


def _deny(nr: int, error: int = errno.EPERM) -> bytes:
    return _op(JEQ, nr, 0, 1) + _return(error)


def _case(nr: int, *steps: bytes) -> bytes:
    """For the call `nr` these steps, the last of which returns."""
    body = b"".join(steps)
    return _op(JEQ, nr, 0, len(body) // 8) + body


def _one_of(index: int, *values: int) -> bytes:
    """Deny the call unless its argument at `index` is one of `values`."""
    jumps = [_op(JEQ, value, len(values) - at, 0) for at, value in enumerate(values)]
    return _argument(index) + b"".join(jumps) + _return(errno.EPERM)


def _none_of(index: int, *values: int) -> bytes:
    return _argument(index) + b"".join(_deny(value) for value in values)


@functools.cache
def seccomp_filter(
    single_process: bool, machine: str | None = None, landlock: int | None = None
) -> bytes:
    """The BPF program, an array of `struct sock_filter`, in which OWN_PID is still to be replaced.

    `landlock` is the version of Landlock, 0 if none, that stands in for namespaces; None with
    namespaces. Raises ResourceError on a machine other than x86_64 and aarch64.
    """
    machine = machine or platform.machine()
    if machine not in AUDIT_ARCH:
        raise ResourceError(f"the sandbox runs on x86_64 and aarch64, not on {machine}")
    column = 0 if machine == "x86_64" else 1
    allow = _op(RETURN, ALLOW)
    program = _op(LOAD, ARCH_OFFSET) + _op(JEQ, AUDIT_ARCH[machine], 1, 0) + _op(RETURN, KILL)
    program += _op(LOAD, NR_OFFSET)
    if machine == "x86_64":  # the x32 ABI has the same calls under other numbers
        program += _op(JGE, X32_BIT, 0, 1) + _return(errno.ENOSYS)
    for numbers in DENIED.values():
        program += _deny(numbers[column])
    # A compiler's driver ends its children; without a namespace Landlock must confine signals.
    if single_process or landlock in range(6):
        for numbers in SIGNALS.values():
            program += _case(numbers[column], _one_of(0, OWN_PID), allow)
    for numbers in SCHEDULING.values():
        program += _case(numbers[column], _one_of(0, 0, OWN_PID), allow)
    program += _case(SETPRIORITY[column], _one_of(0, PRIO_PROCESS), _one_of(1, 0, OWN_PID), allow)
    program += _case(PRCTL[column], _none_of(0, PR_SET_PDEATHSIG), allow)
    program += _case(FCNTL[column], _none_of(1, F_SETOWN, F_SETSIG, F_SETOWN_EX), allow)
    if landlock is not None:
        for numbers in WITHOUT_NAMESPACES.values():
            program += _deny(numbers[column])
        for numbers in METADATA.values():
            program += _deny(numbers[column], errno.EPERM if single_process else 0)
        # Opened for reading a file can be emptied all the same.
        for numbers, index in ((OPEN, 1), (OPENAT, 2)):
            emptied = _op(AND, O_ACCMODE | O_TRUNC) + _deny(O_TRUNC)
            program += _case(numbers[column], _argument(index), emptied, allow)
        program += _deny(OPENAT2[column], errno.ENOSYS)  # its flags are in memory
    # clone3 keeps its flags in memory, out of a filter's sight; libc then falls back to clone.
    program += _deny(CLONE3, errno.ENOSYS)
    if single_process:
        for number in FORKS[machine]:
            program += _deny(number)
    program += _op(JEQ, CLONE[machine], 1, 0) + allow
    program += _argument(0) + _op(JSET, CLONE_NEW, 0, 1) + _return(errno.EPERM)
    if single_process:
        program += _op(JSET, CLONE_THREAD, 1, 0) + _return(errno.EPERM)
    return program + allow
