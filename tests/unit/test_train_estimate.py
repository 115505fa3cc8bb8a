"""The estimate of activations against what autograd keeps, on a small model of the usual form."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from haloforge.train.estimate import trainer_memory
from haloforge.train.model import _with_adapter, model_size
from haloforge.train.settings import TrainSettings

TOKENS, LAYERS, HIDDEN = 256, 3, 128


def kept_bytes(model: torch.nn.Module) -> int:
    """Bytes of the tensors that a forward pass keeps for the backward pass, each counted once."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.arange(TOKENS)[None] % 8
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(input_ids=ids, use_cache=False)
    assert output.logits.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("inside", [350, 700])
@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_activations_are_what_autograd_keeps(inside: int, dropout: float) -> None:
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=HIDDEN,
        intermediate_size=inside,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=1,
        vocab_size=8,
        tie_word_embeddings=False,
    )
    settings = TrainSettings.model_validate({"lora": {"dropout": dropout, "rank": 2}})
    base = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model = _with_adapter(base, settings).train()
    size = model_size(config, None, settings)
    estimated = trainer_memory(size, settings, 1, TOKENS, TOKENS)["activations"]
    assert kept_bytes(model) == pytest.approx(estimated, rel=0.06)
