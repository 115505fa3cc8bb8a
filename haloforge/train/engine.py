"""The model under training inside a DeepSpeed engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deepspeed
import torch
from peft import PeftModel
from transformers.integrations import HfDeepSpeedConfig

from haloforge.train.deepspeed_config import adamw_options, deepspeed_config
from haloforge.train.model import load_policy
from haloforge.train.settings import TrainSettings

SHARD = "1GB"  # the largest file of a model: each goes through Ray's object store


def start_engine(
    base_path: Path,
    adapter_path: Path | None,
    settings: TrainSettings,
    own_config: Mapping[str, Any] = {},
) -> Any:
    """A DeepSpeed engine over the policy, with AdamW over what is trained.

    The process group is up already. Under ZeRO 3 the base is cut over the workers while it
    loads, so that no worker ever holds it whole.
    """
    # DeepSpeed would compile its shared-memory all-reduce; gloo needs no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    config = deepspeed_config(settings, own_config)
    deepspeed.init_distributed()
    sharding = HfDeepSpeedConfig(config) if settings.zero_stage == 3 else None
    model = load_policy(base_path, adapter_path, settings)
    del sharding  # transformers watches it through a weak reference while loading
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    # The loop sets the rate at each step.
    decay, own = settings.weight_decay, adamw_options(own_config)
    optimizer = torch.optim.AdamW(trainable, lr=0.0, weight_decay=decay, **own)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if settings.zero_stage == 0:
        # DeepSpeed's wrapper for bf16 takes a step on zeros to allocate the moments; counted by
        # Adam's bias correction, it would make the first true step a quarter smaller.
        optimizer.state.clear()
    engine.train()
    return engine


class GradientSums:
    """The gradients of a step's micro-batches in fp32, where DeepSpeed would sum them in bf16 (ZeRO
    0 and 1): beside a large sum a small one is lost there."""

    def __init__(self, engine: Any) -> None:
        in_bf16 = engine.bfloat16_enabled() and engine.zero_optimization_stage() < 2
        weights = engine.module.parameters() if in_bf16 else ()
        self._trained = [weight for weight in weights if weight.requires_grad]
        self._sums: dict[torch.nn.Parameter, torch.Tensor] = {}

    def take(self) -> None:
        """Add what a backward pass has left, and leave nothing."""
        for weight in self._trained:
            if weight.grad is not None:
                taken = weight.grad.float()
                self._sums[weight] = self._sums[weight] + taken if weight in self._sums else taken
                weight.grad = None

    def put_back(self) -> None:
        """Before the last backward pass, which adds to it and hands all on."""
        for weight, total in self._sums.items():
            weight.grad = total.to(weight.dtype)


def optimizer_step(engine: Any) -> float:
    """Apply the accumulated gradient, clipped; its 2-norm over all workers, before clipping."""
    # A plain optimizer (ZeRO 0, fp32) does not tell its norm; its gradients are reduced by now.
    gradients = [weight.grad for weight in engine.module.parameters() if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    engine.step()
    known = engine.get_global_grad_norm()
    return float(norm if known is None else known)


def save_trained(engine: Any, folder: Path) -> None:
    """Rank 0 writes what was trained to `folder`: the adapter in PEFT's format, or the whole model
    in that of transformers.

    Every rank must call it: under ZeRO 3 the weights are gathered from all, one at a time, so that
    no GPU has to hold the model.
    """
    model = engine.module
    state: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            with deepspeed.zero.GatheredParameters([weight]):
                if engine.global_rank == 0:
                    state[name] = weight.detach().cpu().clone()
    if engine.global_rank != 0:
        return
    if isinstance(model, PeftModel):
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
        return
    kept = model.state_dict().keys()
    buffers = {name: value.cpu() for name, value in model.named_buffers() if name in kept}
    model.save_pretrained(folder, state_dict=state | buffers, max_shard_size=SHARD)
