"""Folders of ours in plain PEFT, transformers and vLLM, in processes without haloforge."""

import json
import os
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
    answers = {
        name: model.generate(**prompt, max_new_tokens=60, do_sample=False)[0].tolist()
        for name, model in models.items()
    }
print(json.dumps([logits, answers]))
"""


# As OTHER_HARNESSES.md says: the adapter as a LoRA request.
SERVED = """
import json, sys
sys.modules["haloforge"] = None
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

adapter, *models = sys.argv[1:]
turns = [{"role": "user", "content": "sum of values"}]
greedy = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
found = []
for model in models:
    llm = LLM(
        model,
        enable_lora=True,
        max_lora_rank=8,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=2,
        kv_cache_memory_bytes=2**26,
    )
    for lora in (None, LoRARequest("adapter", 1, adapter)):
        (answer,) = llm.chat(turns, greedy, lora_request=lora, use_tqdm=False)
        (top,) = answer.outputs[0].logprobs
        found.append({token: each.logprob for token, each in top.items()})
    del llm
print(json.dumps(found))
"""


def test_an_adapter_and_its_merged_model_load_without_our_code(
    tiny_model: Path, tmp_path: Path
) -> None:
    adapter = random_adapter(tiny_model, tmp_path / "final_model", 1)
    merged = tmp_path / "merged"
    command = [sys.executable, "-m", "haloforge", "model", "merge", "--model", str(adapter)]
    subprocess.run([*command, "--output", str(merged), "--dtype", "fp32"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(adapter), str(merged)],
        cwd=tiny_model.parent,
        stdout=subprocess.PIPE,
        check=True,
    )
    logits, answers = json.loads(done.stdout)
    assert logits["adapter"] == pytest.approx(logits["merged"], abs=1e-3)
    assert logits["adapter"] != pytest.approx(logits["base"], abs=0.5)
    assert answers["adapter"] == answers["merged"] != answers["base"]


def test_vllm_serves_the_adapter_as_a_lora_and_as_the_merged_model(
    tiny_model: Path, tmp_path: Path
) -> None:
    adapter = random_adapter(tiny_model, tmp_path / "final_model", 1)
    merged = tmp_path / "merged"
    resolve_policy(str(adapter)).merge_into(merged)
    done = subprocess.run(
        [sys.executable, "-c", SERVED, str(adapter), str(tiny_model), str(merged)],
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        stdout=subprocess.PIPE,
        check=True,
    )
    base, lora, as_merged, _ = json.loads(done.stdout.splitlines()[-1])
    assert lora == pytest.approx(as_merged, abs=0.1)  # merged in bf16
    assert lora != pytest.approx(base, abs=0.5)
