"""Folders of ours in plain PEFT and transformers, in a process that cannot import haloforge."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from haloforge.model.policy import resolve_policy
from tests.adapters import random_adapter

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


def test_an_adapter_and_its_merged_model_load_without_our_code(
    tiny_model: Path, tmp_path: Path
) -> None:
    adapter = random_adapter(tiny_model, tmp_path / "final_model", 1)
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
