"""What a CPU computes in: bfloat16 where it has instructions for it."""

import platform
from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of x86, and of ARM


@cache
def cpu_has_bf16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 by itself.

    Where it does not, libraries convert each operand: on such a machine (AVX2) a matrix product
    took seven times as long as in float32, so that is computed in where bfloat16 is asked for. It
    holds more digits and takes twice the memory.
    """
    return platform.system() == "Linux" and has_bf16(_CPU_INFO)


def has_bf16(cpu_info: Path) -> bool:
    """Whether the CPU that Linux describes in this file does."""
    return bool(_FLAGS & set(cpu_info.read_text().split()))
