"""The model under training: a base with a LoRA adapter, a new one or one that goes on; or whole."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PretrainedConfig

from haloforge.errors import InputError, ResourceError
from haloforge.train.settings import TrainSettings


def load_policy(
    base_path: Path, adapter_path: Path | None, settings: TrainSettings
) -> torch.nn.Module:
    """The base with a new LoRA adapter, seeded, or with the one at `adapter_path`, trainable; or,
    without `settings.use_lora`, the base with all of its weights trainable."""
    dtype = torch.bfloat16 if settings.dtype == "bf16" else torch.float32
    options = {"quantization_config": _four_bits(dtype)} if settings.load_in_4bit else {}
    base = AutoModelForCausalLM.from_pretrained(base_path, dtype=dtype, **options)
    base.config.use_cache = False
    if settings.load_in_4bit:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    if settings.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        if settings.use_lora:
            base.enable_input_require_grads()  # the first layer's input is frozen
    if not settings.use_lora:
        return base
    if adapter_path is not None:
        return PeftModel.from_pretrained(
            base, adapter_path, is_trainable=True, autocast_adapter_dtype=False
        )
    torch.manual_seed(settings.seed)
    return _with_adapter(base, settings)


class ModelSize(NamedTuple):
    """Parameters in all, those that train, and those of the embeddings, input and output; layers,
    and of a token the values in a layer's hidden state, inside its MLP, and its logits."""

    parameters: int
    trained: int
    embeddings: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


def model_size(
    config: PretrainedConfig, adapter_path: Path | None, settings: TrainSettings
) -> ModelSize:
    """The size of what `load_policy` would load of a base with `config`; the model is made without
    memory."""
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config)
        if not settings.use_lora:
            model = base
        elif adapter_path is None:
            model = _with_adapter(base, settings)
        else:
            adapter = LoraConfig.from_pretrained(adapter_path)
            adapter.inference_mode = False
            adapter.base_model_name_or_path = None  # PEFT warns where it is not that of `base`
            model = get_peft_model(base, adapter, autocast_adapter_dtype=False)
    weights = list(model.parameters())
    outer = {
        id(part.weight) for part in (base.get_input_embeddings(), base.get_output_embeddings())
    }
    text = config.get_text_config()
    return ModelSize(
        parameters=sum(weight.numel() for weight in weights),
        trained=sum(weight.numel() for weight in weights if weight.requires_grad),
        embeddings=sum(weight.numel() for weight in weights if id(weight) in outer),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
    )


def _with_adapter(base: torch.nn.Module, settings: TrainSettings) -> torch.nn.Module:
    lora = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=settings.lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(base, lora, autocast_adapter_dtype=False)
    except ValueError as error:
        raise InputError(f"train.lora.target_modules: {error}") from error


def _four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """A frozen base in NF4 (QLoRA, Dettmers et al. 2023), which bitsandbytes computes with."""
    if find_spec("bitsandbytes") is None or not torch.cuda.is_available():
        raise ResourceError(
            "train.load_in_4bit needs a GPU and the package bitsandbytes on every node that trains "
            "(pip install bitsandbytes); without them leave it out"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
