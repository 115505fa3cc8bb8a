"""What `sft train` prints of a run before it starts, and that it starts nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ANSWERS = [f"answer {number} " + "x" * number for number in range(12)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]}
        for answer in [*ANSWERS, ""]
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def printed(model: Path, data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "haloforge", "sft", "train", "--model", str(model)]
    command += ["--data", str(data), "--output", str(data.parent / "out"), "--epochs", "2"]
    command += ["--batch-size", "5", "--set", "ray.num_cpus=2", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_one_batch_and_the_numbers(tiny_model: Path, data: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    done = printed(tiny_model, data, "--show-batch", "--dry-run")
    assert done.returncode == 0, done.stderr
    trained = re.findall("⟦(.*?)⟧", done.stdout.split("--- ", 1)[1])
    answers = [text for text in trained if text.strip()]
    assert len(answers) == 5
    assert all(answer.removesuffix("<|im_end|>") in ANSWERS for answer in answers)
    assert all(answer.endswith("<|im_end|>") for answer in answers)
    assert "user\n?<|im_end|>\n<|im_start|>assistant\n⟦answer" in done.stdout

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    trainable, everything = get_peft_model(model, lora).get_nb_trainable_parameters()
    told = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "12 (1 more have no answer token" in told["rows"]
    assert "steps          6 of 5 rows, 2 epochs" in done.stdout
    assert f"{everything:,}, of which {trainable:,} train" in told["parameters"]
    assert not (data.parent / "out").exists()


def test_a_warm_up_as_long_as_training_is_refused_with_the_numbers(
    tiny_model: Path, data: Path
) -> None:
    done = printed(tiny_model, data, "--dry-run", "--set", "train.warmup_ratio=0.9")
    assert done.returncode == 2
    assert "train.warmup_ratio=0.9 warms up for 6 of 6 steps" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_needs_held_out_rows_is_refused_without_them(tiny_model: Path, data: Path) -> None:
    done = printed(tiny_model, data, "--patience", "2")
    assert done.returncode == 2
    assert "train.patience and train.eval_steps need held-out rows" in done.stderr
    assert not (data.parent / "out").exists()
