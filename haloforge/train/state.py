"""What a training engine has learned, as whole tensors whatever ZeRO stage and workers it has.

DeepSpeed's own checkpoints hold each worker's part, and so need the same number of workers again.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor
from torch.nn import Parameter

WEIGHT, MOMENTS = "weight", ("exp_avg", "exp_avg_sq")


def read_state(engine: Any) -> dict[str, Tensor]:
    """The trained weights in fp32 and AdamW's moments, on rank 0; empty elsewhere.

    Keys are `weight/NAME`, `exp_avg/NAME` and `exp_avg_sq/NAME`. At least one step was made. Every
    rank must call it: parts are gathered from all.
    """
    state: dict[str, Tensor] = {}
    for name, weight in _trained(engine):
        whole = _read(engine, weight)
        if engine.global_rank == 0:
            state |= {f"{kind}/{name}": tensor.cpu().clone() for kind, tensor in whole.items()}
    return state


def write_state(engine: Any, state: Mapping[str, Tensor], step: int) -> None:
    """Put what `read_state` gave after `step` steps back, to the bit; rank 0 has it.

    Every rank must call it.
    """
    _make_moments(engine)
    for name, weight in _trained(engine):
        shape = getattr(weight, "ds_shape", weight.shape)
        whole = {
            kind: _from_rank_0(engine, state.get(f"{kind}/{name}"), shape)
            for kind in (WEIGHT, *MOMENTS)
        }
        _write(engine, weight, whole)
    for moments in _inner(engine).state.values():
        moments["step"] = torch.tensor(float(step))


def _trained(engine: Any) -> Iterator[tuple[str, Parameter]]:
    return (pair for pair in engine.module.named_parameters() if pair[1].requires_grad)


def _inner(engine: Any) -> Any:
    """PyTorch's optimizer, inside DeepSpeed's where it has one."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _master(engine: Any, weight: Parameter) -> Tensor:
    """Without ZeRO: the weight that the optimizer steps, an fp32 copy where training is in bf16."""
    outer = engine.optimizer
    if not hasattr(outer, "fp32_groups"):
        return weight
    for low, high in zip(outer.fp16_groups, outer.fp32_groups, strict=True):
        for mine, master in zip(low, high, strict=True):
            if mine is weight:
                return master
    raise KeyError("a trained weight is not in the optimizer")


def _read(engine: Any, weight: Parameter) -> dict[str, Tensor]:
    if engine.zero_optimization_stage():
        whole = {kind: safe_get_full_optimizer_state(weight, kind) for kind in MOMENTS}
        return {WEIGHT: safe_get_full_fp32_param(weight), **whole}
    master = _master(engine, weight)
    moments = _inner(engine).state[master]
    return {WEIGHT: master.detach().float(), **{kind: moments[kind] for kind in MOMENTS}}


@torch.no_grad()
def _write(engine: Any, weight: Parameter, whole: dict[str, Tensor]) -> None:
    if engine.zero_optimization_stage():
        if hasattr(weight, "ds_tensor"):
            _write_part(weight, whole)
        else:
            safe_set_full_fp32_param(weight, whole[WEIGHT])
            for kind in MOMENTS:
                safe_set_full_optimizer_state(weight, whole[kind], kind)
        # That sets the fp32 copy alone; the model computes with another.
        with deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
            weight.copy_(whole[WEIGHT])
        return
    master = _master(engine, weight)
    master.copy_(whole[WEIGHT])
    weight.copy_(whole[WEIGHT])
    for kind in MOMENTS:
        _inner(engine).state[master][kind].copy_(whole[kind])


def _write_part(weight: Parameter, whole: dict[str, Tensor]) -> None:
    """ZeRO 3: this worker's part. DeepSpeed's own way takes no tensor that the workers cannot share
    evenly, and pads it when it is first cut."""
    group, size = weight.ds_process_group, weight.ds_tensor.numel()
    begin = torch.distributed.get_rank(group) * size
    for kind, tensor in whole.items():
        part = tensor.new_zeros(size)
        own = tensor.flatten()[begin : begin + size]
        part[: own.numel()] = own
        if kind == WEIGHT:
            safe_set_local_fp32_param(weight, part)
        else:
            safe_set_local_optimizer_state(weight, part, kind)


def _make_moments(engine: Any) -> None:
    """AdamW makes its moments at its first step: one that moves nothing."""
    idle = torch.zeros((1, 1), dtype=torch.long, device=engine.device)
    engine.set_gradient_accumulation_boundary(True)
    engine.backward(engine(input_ids=idle).logits.float().sum() * 0.0)
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    engine.step()


def _from_rank_0(engine: Any, tensor: Tensor | None, shape: Any) -> Tensor:
    whole = torch.empty(shape, dtype=torch.float32, device=engine.device)
    if tensor is not None:
        whole.copy_(tensor)
    torch.distributed.broadcast(whole, 0)
    return whole
