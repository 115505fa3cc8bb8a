"""The policy under training: base and LoRA adapter inside a DeepSpeed engine."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import deepspeed
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.integrations import HfDeepSpeedConfig

from haloforge.errors import InputError
from haloforge.train.settings import TrainSettings


def deepspeed_config(settings: TrainSettings) -> dict[str, Any]:
    """DeepSpeed's configuration.

    Micro-batches vary in size and the loop sets the boundaries of accumulation itself, so the
    batch sizes here only satisfy DeepSpeed's arithmetic and scale nothing.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": settings.dtype == "bf16"},
        "communication_data_type": "fp32",  # an adapter's gradients are small: sum them exactly
        "zero_optimization": {"stage": settings.zero_stage},
        "steps_per_print": 1_000_000_000,
    }
    if settings.zero_stage >= 2:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def load_policy(
    base_path: Path, adapter_path: Path | None, settings: TrainSettings
) -> torch.nn.Module:
    """The base with a new LoRA adapter, seeded, or with the one at `adapter_path`, trainable."""
    dtype = torch.bfloat16 if settings.dtype == "bf16" else torch.float32
    base = AutoModelForCausalLM.from_pretrained(base_path, dtype=dtype)
    base.config.use_cache = False
    if adapter_path is not None:
        return PeftModel.from_pretrained(
            base, adapter_path, is_trainable=True, autocast_adapter_dtype=False
        )
    lora = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=settings.lora.target_modules,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(settings.seed)
    try:
        return get_peft_model(base, lora, autocast_adapter_dtype=False)
    except ValueError as error:
        raise InputError(f"train.lora.target_modules: {error}") from error


def start_engine(base_path: Path, adapter_path: Path | None, settings: TrainSettings) -> Any:
    """A DeepSpeed engine over the policy, with AdamW over the adapter alone.

    The process group is up already. Under ZeRO 3 the base is cut over the workers while it
    loads, so that no worker ever holds it whole.
    """
    # DeepSpeed would compile its shared-memory all-reduce; gloo needs no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    config = deepspeed_config(settings)
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


def adapter_files(engine: Any) -> dict[str, bytes]:
    """The adapter in PEFT's format as file name to content, on rank 0; empty elsewhere.

    Every rank must call it: under ZeRO 3 the weights are gathered from all.
    """
    model = engine.module
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    with deepspeed.zero.GatheredParameters(trainable):
        if engine.global_rank != 0:
            return {}
        with TemporaryDirectory() as folder:
            model.save_pretrained(folder, save_embedding_layers=False)
            names = ("adapter_config.json", "adapter_model.safetensors")
            return {name: (Path(folder) / name).read_bytes() for name in names}
