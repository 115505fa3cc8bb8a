"""The system-call filter on both machines it is written for, run by a small interpreter."""

import struct

import pytest

from haloforge.verify import seccomp


def allowed(program: bytes, arch: int, nr: int, arg0: int = 0) -> bool:
    """What a classic BPF program says to one system call (the six operations that we use)."""
    data = struct.pack("<IIQQ", nr, arch, 0, arg0)
    code, at, value = list(struct.iter_unpack("<HBBI", program)), 0, 0
    while True:
        op, jt, jf, k = code[at]
        at += 1
        if op == seccomp.LOAD:
            value = struct.unpack_from("<I", data, k)[0]
        elif op == seccomp.RETURN:
            return bool(k == seccomp.ALLOW)
        else:
            test = {seccomp.JEQ: value == k, seccomp.JGE: value >= k, seccomp.JSET: value & k}[op]
            at += jt if test else jf


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_on_both_machines(machine: str) -> None:
    arch, clone = seccomp.AUDIT_ARCH[machine], seccomp.CLONE[machine]
    column = 0 if machine == "x86_64" else 1
    thread, plain_fork, new_user = 0x3D0F00, 0x01200011, 0x10000000
    for single in (True, False):
        program = seccomp.seccomp_filter(single, machine)
        assert not any(allowed(program, arch, row[column]) for row in seccomp.DENIED.values())
        assert not allowed(program, arch, seccomp.CLONE3)
        assert not allowed(program, 0x40000003, 4)  # another architecture's calls
        assert not allowed(program, arch, clone, new_user | 17)
        assert allowed(program, arch, clone, thread)
        assert allowed(program, arch, clone, plain_fork) is not single
        assert all(allowed(program, arch, nr) is not single for nr in seccomp.FORKS[machine])
        assert allowed(program, arch, 0 if column == 0 else 63)  # read
    if machine == "x86_64":
        assert not allowed(seccomp.seccomp_filter(False, machine), arch, seccomp.X32_BIT | 41)
