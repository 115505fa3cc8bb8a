"""The system-call filter on both machines it is written for, run by a small interpreter."""

import struct

import pytest

from haloforge.verify import seccomp
from haloforge.verify.guards import OWN_PID

MACHINES = {"x86_64": 0, "aarch64": 1}


def answer(program: bytes, arch: int, nr: int, *arguments: int) -> int:
    """What a classic BPF program says to one system call (the seven operations that we use)."""
    data = struct.pack("<IIQ6Q", nr, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    code, at, value = list(struct.iter_unpack("<HBBI", program)), 0, 0
    while True:
        op, jt, jf, k = code[at]
        at += 1
        if op == seccomp.LOAD:
            value = struct.unpack_from("<I", data, k)[0]
        elif op == seccomp.AND:
            value &= k
        elif op == seccomp.RETURN:
            return k
        else:
            test = {seccomp.JEQ: value == k, seccomp.JGE: value >= k, seccomp.JSET: value & k}[op]
            at += jt if test else jf


def allowed(program: bytes, arch: int, nr: int, *arguments: int) -> bool:
    return answer(program, arch, nr, *arguments) == seccomp.ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("landlock", [None, 1, 7])
def test_filter_on_both_machines(machine: str, landlock: int | None) -> None:
    arch, clone = seccomp.AUDIT_ARCH[machine], seccomp.CLONE[machine]
    column = MACHINES[machine]
    thread, plain_fork, new_user = 0x3D0F00, 0x01200011, 0x10000000
    for single in (True, False):
        program = seccomp.seccomp_filter(single, machine, landlock)
        assert not any(allowed(program, arch, row[column]) for row in seccomp.DENIED.values())
        assert not allowed(program, arch, seccomp.CLONE3)
        assert not allowed(program, 0x40000003, 4)  # another architecture's calls
        assert not allowed(program, arch, clone, new_user | 17)
        assert allowed(program, arch, clone, thread)
        assert allowed(program, arch, clone, plain_fork) is not single
        assert all(allowed(program, arch, nr) is not single for nr in seccomp.FORKS[machine])
        assert allowed(program, arch, 0 if column == 0 else 63)  # read
        if machine == "x86_64":
            assert not allowed(program, arch, seccomp.X32_BIT | 41)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("landlock", [None, 0, 5, 6])
def test_other_processes_are_out_of_reach(machine: str, landlock: int | None) -> None:
    arch, column = seccomp.AUDIT_ARCH[machine], MACHINES[machine]
    for single in (True, False):
        program = seccomp.seccomp_filter(single, machine, landlock)
        confined = landlock is None or landlock >= 6  # by a namespace, or Landlock's scope
        for numbers in seccomp.SIGNALS.values():
            assert allowed(program, arch, numbers[column], OWN_PID, 9)
            for other in (OWN_PID - 1, 1, 0, (1 << 32) - 1):
                free = allowed(program, arch, numbers[column], other, 9)
                assert free is (confined and not single)
        for numbers in seccomp.SCHEDULING.values():
            for pid, free in ((OWN_PID, True), (0, True), (1, False), ((1 << 32) - 1, False)):
                assert allowed(program, arch, numbers[column], pid) is free
        setpriority = seccomp.SETPRIORITY[column]
        assert allowed(program, arch, setpriority, 0, 0, 5)
        assert allowed(program, arch, setpriority, 0, OWN_PID, 5)
        for which, who in ((0, 1), (1, 0), (2, 0), (2, OWN_PID)):  # groups and users
            assert not allowed(program, arch, setpriority, which, who, 5)
        assert not allowed(program, arch, seccomp.PRCTL[column], seccomp.PR_SET_PDEATHSIG, 0)
        assert allowed(program, arch, seccomp.PRCTL[column], 15)  # PR_SET_NAME
        for command in (seccomp.F_SETOWN, seccomp.F_SETSIG, seccomp.F_SETOWN_EX):
            assert not allowed(program, arch, seccomp.FCNTL[column], 3, command, 1)
        assert allowed(program, arch, seccomp.FCNTL[column], 3, 2, 1)  # F_SETFD


@pytest.mark.parametrize("machine", MACHINES)
def test_the_users_files_are_out_of_reach_without_namespaces(machine: str) -> None:
    arch, column = seccomp.AUDIT_ARCH[machine], MACHINES[machine]
    inside = seccomp.seccomp_filter(True, machine)
    running = seccomp.seccomp_filter(True, machine, 7)
    compiling = seccomp.seccomp_filter(False, machine, 7)
    for numbers in seccomp.METADATA.values():
        if numbers[column] != seccomp.ABSENT:
            assert allowed(inside, arch, numbers[column])
            assert answer(running, arch, numbers[column]) == seccomp.ERRNO | 1
            assert answer(compiling, arch, numbers[column]) == seccomp.ERRNO  # said to be done
    for numbers in seccomp.WITHOUT_NAMESPACES.values():
        assert allowed(inside, arch, numbers[column])
        assert not allowed(running, arch, numbers[column])
        assert not allowed(compiling, arch, numbers[column])
    openat = seccomp.OPENAT[column]
    for flags, free in ((0, True), (0o101, True), (0x201, True), (0x200, False), (0x80200, False)):
        assert allowed(running, arch, openat, 3, 0, flags) is free
    assert not allowed(running, arch, seccomp.OPENAT2[column])


def test_the_placeholder_is_no_other_number() -> None:
    """It is replaced as bytes, which must be found nowhere else."""
    for machine in MACHINES:
        for landlock in (None, 0, 7):
            program = seccomp.seccomp_filter(True, machine, landlock)
            at, found = struct.pack("<I", OWN_PID), 0
            for _, _, _, k in struct.iter_unpack("<HBBI", program):
                found += k == OWN_PID
            assert program.count(at) == found > 5
    assert OWN_PID > 1 << 22  # the largest that Linux gives
