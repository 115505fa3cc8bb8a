"""The model under training inside a DeepSpeed engine."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import deepspeed
import torch
from peft import PeftModel
from transformers.integrations import HfDeepSpeedConfig

from haloforge.train.deepspeed_config import deepspeed_config
from haloforge.train.model import load_policy
from haloforge.train.settings import TrainSettings


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
    optimizer = torch.optim.AdamW(trainable, lr=0.0, weight_decay=settings.weight_decay)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if settings.zero_stage == 0:
        # DeepSpeed's wrapper for bf16 takes a step on zeros to allocate the moments; counted by
        # Adam's bias correction, it would make the first true step a quarter smaller.
        optimizer.state.clear()
    engine.train()
    return engine


def optimizer_step(engine: Any) -> float:
    """Apply the accumulated gradient, clipped; its 2-norm over all workers, before clipping."""
    # A plain optimizer (ZeRO 0, fp32) does not tell its norm; its gradients are reduced by now.
    gradients = [weight.grad for weight in engine.module.parameters() if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    engine.step()
    known = engine.get_global_grad_norm()
    return float(norm if known is None else known)


def trained_files(engine: Any) -> dict[str, bytes]:
    """What was trained as file name to content, on rank 0; empty elsewhere: the adapter in PEFT's
    format, or the whole model in that of transformers.

    Every rank must call it: under ZeRO 3 the weights are gathered from all.
    """
    model = engine.module
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    with deepspeed.zero.GatheredParameters(trainable):
        if engine.global_rank != 0:
            return {}
        with TemporaryDirectory() as folder:
            if isinstance(model, PeftModel):
                model.save_pretrained(folder, save_embedding_layers=False)
            else:
                model.save_pretrained(folder)
            return {
                path.name: path.read_bytes()
                for path in Path(folder).iterdir()
                if path.suffix in (".json", ".safetensors")
            }
