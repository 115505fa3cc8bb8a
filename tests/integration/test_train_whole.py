"""`--no-lora`: all weights are trained, and what is written is a model for everyone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from haloforge.model.policy import resolve_policy


def sft(model: Path, data: Path, output: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "haloforge", "sft", "train", "--model", str(model)]
    command += ["--data", str(data), "--output", str(output), "--epochs", "2", *options]
    command += ["--learning-rate", "1e-3", "--set", "ray.num_cpus=2", "--set", "train.workers=1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    turns = [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"answer {n}"}]
        for n in range(16)
    ]
    path.write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    return path


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_every_weight_is_trained_and_transformers_loads_them(
    zero_stage: int, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stage = ["--set", f"train.zero_stage={zero_stage}"]
    done = sft(tiny_model, data, tmp_path / "out", "--no-lora", *stage)
    assert done.returncode == 0, done.stderr
    final = tmp_path / "out" / "final_model"
    before = AutoModelForCausalLM.from_pretrained(tiny_model)
    after = AutoModelForCausalLM.from_pretrained(final)
    same = [
        name
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if torch.equal(old, new)
    ]
    assert same == []
    assert AutoTokenizer.from_pretrained(final).chat_template
    losses = [json.loads(line)["loss"] for line in (final / "metrics.jsonl").open()]
    assert losses[-1] < losses[0]
    policy = resolve_policy(str(final))
    assert (policy.adapter, policy.folder) == (None, final)
    assert "All weights of" in (final / "README.md").read_text()


def test_four_bits_without_their_package_are_refused_with_a_line(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    done = sft(tiny_model, data, tmp_path / "four", "--set", "train.load_in_4bit=true")
    assert done.returncode == 3, done.stderr
    assert "train.load_in_4bit needs a GPU and the package bitsandbytes" in done.stderr
    assert "Traceback" not in done.stderr
    both = sft(tiny_model, data, tmp_path / "both", "--no-lora", "--set", "train.load_in_4bit=true")
    assert both.returncode == 2
    assert "weights in four bits cannot be trained" in both.stderr
