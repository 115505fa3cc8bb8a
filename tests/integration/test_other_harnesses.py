"""Folders of ours in plain PEFT and transformers, in a process that cannot import haloforge."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from haloforge.model.adapter import AdapterInfo, finish_adapter
from haloforge.model.bases import resolve_base
from haloforge.model.card import model_card
from haloforge.model.policy import resolve_policy

# Loaded as the model card says; `tiny` is the base's public id, and found as a folder from here.
PLAIN = """
import json, sys
sys.modules["haloforge"] = None
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

adapter, merged = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
turns = [{"role": "user", "content": "sum of values"}]
prompt = tokenizer.apply_chat_template(
    turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
models = {
    "base": AutoModelForCausalLM.from_pretrained("tiny", dtype=torch.float32),
    "adapter": AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32),
    "merged": AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32),
}
with torch.no_grad():
    logits = {name: model(**prompt).logits[0, -1].tolist() for name, model in models.items()}
print(json.dumps(logits))
"""


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    """An adapter on the tiny base that changes what it says, finished as training finishes one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "trained")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "trained")
    base = resolve_base(str(tiny_model))
    training = {"rows": 1, "trained_tokens": 1, "steps": 1, "loss_first": 1.0, "loss_last": 1.0}
    info = AdapterInfo(
        base=base.name,
        base_public_id=base.public_id,
        base_digest=base.digest,
        stage="sft",
        parent=base.digest,
        chat_template="",
        training=training,
    )
    folder = tmp_path / "final_model"
    finish_adapter(tmp_path / "trained", folder, base, info, model_card(info, "None.", None))
    return folder


def test_an_adapter_and_its_merged_model_load_without_our_code(
    adapter: Path, tiny_model: Path, tmp_path: Path
) -> None:
    merged = tmp_path / "merged"
    resolve_policy(str(adapter)).merge_into(merged)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(adapter), str(merged)],
        cwd=tiny_model.parent,
        stdout=subprocess.PIPE,
        check=True,
    )
    logits = json.loads(done.stdout)
    assert logits["adapter"] == pytest.approx(logits["merged"], abs=0.1)  # merged in bf16
    assert logits["adapter"] != pytest.approx(logits["base"], abs=0.5)
