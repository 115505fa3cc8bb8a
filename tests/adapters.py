"""Adapters on the tiny base, made without training."""

from pathlib import Path

from haloforge.model.adapter import AdapterInfo, finish_training
from haloforge.model.bases import resolve_base
from haloforge.model.card import model_card


def random_adapter(
    base_folder: Path | str,
    folder: Path,
    seed: int,
    rank: int = 4,
    std: float = 0.3,
    system: str | None = None,
) -> Path:
    """An adapter that changes what the base says, finished in `folder` as training finishes one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = resolve_base(str(base_folder))
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.path), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=std)
    made = folder.with_name(f"{folder.name}.made")
    model.save_pretrained(made)
    AutoTokenizer.from_pretrained(base.path).save_pretrained(made)
    training = {"rows": 1, "trained_tokens": 1, "steps": 1, "loss_first": 1.0, "loss_last": 1.0}
    info = AdapterInfo(
        base=base.name,
        base_public_id=base.public_id,
        base_digest=base.digest,
        stage="sft",
        parent=base.digest,
        system=system,
        chat_template="",
        training=training,
    )
    finish_training(made, folder, base, info, model_card(info, "None.", None))
    return folder
