"""The compiled norms on a CPU are those of PyTorch, for what they say they take."""

import pytest
import torch

from haloforge.rollout import cpu_norms

pytest.importorskip("vllm")
EPSILON = 1e-5


@pytest.fixture(autouse=True)
def kernels() -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("this vLLM is not built for CPUs")
    current_platform.import_kernels()


def right(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """In double precision."""
    x = x.double()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight.double()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 64), (64, 576), (3, 7, 576), (5, 48)])
def test_both_norms_are_right(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, residual, weight = (torch.randn(size).to(dtype) for size in (shape, shape, shape[-1:]))
    near = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
    assert torch.allclose(cpu_norms.rms_norm(x, weight, EPSILON).double(), right(x, weight), **near)
    total = x.double() + residual.double()
    normed, summed = cpu_norms.fused_add_rms_norm(x, residual, weight, EPSILON)
    assert torch.allclose(summed.double(), total, **near)
    assert torch.allclose(normed.double(), right(total, weight), **near)


def test_what_the_kernel_does_not_take_is_left_to_pytorch() -> None:
    x, weight = torch.ones(16, 32, dtype=torch.bfloat16), torch.ones(32, dtype=torch.bfloat16)
    suits, both_suit = cpu_norms._suits, cpu_norms._both_suit
    assert suits(x, weight, EPSILON) and both_suit(x, x, weight, EPSILON)
    assert not suits(x, None, EPSILON)
    assert not suits(x, weight.float(), EPSILON)
    assert not suits(x, weight, EPSILON, 4)
    assert not suits(x.t(), torch.ones(16, dtype=torch.bfloat16), EPSILON)
    assert not suits(x[:, :24].contiguous(), weight[:24], EPSILON), "it would read past a row"
    assert not both_suit(x, x.float(), weight, EPSILON)
    assert not both_suit(x, torch.ones(32, 16, dtype=torch.bfloat16).t(), weight, EPSILON)
