"""RMSNorm on a CPU by the one compiled kernel that vLLM has for it but leaves to GPUs.

Where a model is not compiled, vLLM normalises on a CPU by some ten PyTorch calls in a row, in each
of which all threads meet: five times as long as its own kernel (64 x 576 in bf16: 41 against 8
microseconds, 61 times a step), and longer where a verifier holds one of the threads up.
"""

import os
from typing import Any

import torch
from torch import Tensor

from haloforge.rollout.cpu_sampler import CPU_ENGINE_VARIABLE

_PROVIDER = "haloforge_cpu"
_LANES = 16  # the kernel reads so many elements at once, and beyond a row of another size
# What makes an engine take these kernels first: its setting `ir_op_priority`.
CPU_NORMS: dict[str, Any] = {"rms_norm": [_PROVIDER], "fused_add_rms_norm": [_PROVIDER]}


def register_cpu_norms() -> None:
    """Adds the kernels to vLLM's table in this process; a plugin of vLLM."""
    if os.environ.get(CPU_ENGINE_VARIABLE) is None:
        return
    from vllm import ir
    from vllm.platforms import current_platform

    if _PROVIDER in ir.ops.rms_norm.impls:
        return
    current_platform.import_kernels()
    ir.ops.rms_norm.register_impl(_PROVIDER, supports_args=_suits)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(_PROVIDER, supports_args=_both_suit, inplace=True)(
        fused_add_rms_norm
    )


def rms_norm(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> Tensor:
    """`x`, [..., hidden], over its root mean square, times `weight`, [hidden]."""
    output = torch.empty_like(x)
    torch.ops._C.rms_norm(output, x, weight, epsilon)
    return output


def fused_add_rms_norm(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The norm of `x + x_residual`, and that sum; both are written in the inputs' place."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def _suits(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    """What the kernel can take; all else is left to PyTorch."""
    same = weight is not None and weight.dtype == x.dtype
    whole = variance_size is None and x.shape[-1] % _LANES == 0 and x.is_contiguous()
    return same and whole


def _both_suit(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    same = x_residual.dtype == x.dtype and x_residual.is_contiguous()
    return same and _suits(x, weight, epsilon, variance_size)
