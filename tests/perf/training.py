"""What the measures of training share: the data, our side, and those that it is held against.

All train the bundled model's LoRA adapter (rank 16, all linear layers) in bf16, or in fp32 on a CPU
that has no bf16, on the same bundled C++ answers, with the same threads. Counted are trained tokens
(the answers), over the time of all steps, start-up apart; the number of trained tokens is ours for
all sides.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from haloforge.train.settings import TrainSettings
from tests.perf.measuring import number_format

ROWS, BATCH_ROWS, PACKED_TOKENS = 96, 8, 2048
SETTINGS = TrainSettings(epochs=1, batch_size=BATCH_ROWS, warmup_ratio=0, schedule="constant")
# The peer, and what it needs beside our own packages; put in a folder of its own.
PEER = ("trl==1.16.0", "datasets==5.2.0", "multiprocess==0.70.19", "dill==0.4.1", "xxhash==4.1.0")
PEER_FOLDER = Path(tempfile.gettempdir()) / f"haloforge-perf-{PEER[0].replace('==', '-')}"


def rows() -> list[dict[str, Any]]:
    """Conversations, from all over the bundled set."""
    from haloforge.data.sft import read_sft
    from tests.perf.measuring import spread

    return [{"messages": row} for row in spread(read_sft("starter", "cpp"), ROWS)]


def base_path() -> Path:
    """The bundled model's folder."""
    from haloforge.model.bases import BUNDLED, resolve_base

    return resolve_base(BUNDLED).path


def threads() -> int:
    """All cores."""
    return os.cpu_count() or 1


def ours(workers: int = 1, threads_each: int | None = None) -> float:
    """Trained tokens/s of `train`: Ray Data, Ray Train, DeepSpeed, metrics and all."""
    import ray

    from haloforge.train.metrics import StepMetrics
    from haloforge.train.trainer import train

    ray.init(address="local", num_cpus=threads(), include_dashboard=False, log_to_driver=False)
    seen: list[tuple[float, StepMetrics]] = []
    settings = SETTINGS.model_copy(update={"workers": workers})
    share = threads() / workers
    with tempfile.TemporaryDirectory() as output:
        train(
            rows(), base_path(), None, Path(output), settings, share,
            threads_each or int(share), lambda step: seen.append((time.perf_counter(), step)),
        )  # fmt: skip
    ray.shutdown()
    (first, step), (last, _) = seen[0], seen[-1]
    return sum(step.trained_tokens for _, step in seen) / (last - first + step.seconds)


def encoded() -> list[tuple[list[int], list[bool]]]:
    """Each row's tokens, and of each whether it is trained on."""
    from transformers import AutoTokenizer

    from haloforge.data.chat import encode_example

    tokenizer = AutoTokenizer.from_pretrained(base_path())
    found = [encode_example(tokenizer, row["messages"], SETTINGS.max_length) for row in rows()]
    return [(each.input_ids, each.trained) for each in found if each is not None]


def trained_tokens() -> int:
    """Of all rows together."""
    return sum(sum(trained) for _, trained in encoded())


def bare() -> float:
    """Trained tokens/s of a bare forward and backward pass on rows that are all full: the same
    tokens end to end, cut to 512, eight at a time; no optimizer, no collective, no logging."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads())
    dtype = getattr(torch, number_format())
    model = AutoModelForCausalLM.from_pretrained(base_path(), dtype=dtype)
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear")
    model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    model.train()
    ids, labels = [], []
    for tokens, trained in encoded():
        ids += tokens
        pairs = zip(tokens, trained, strict=True)
        labels += [token if learned else -100 for token, learned in pairs]
    size = BATCH_ROWS * 512
    count = began = 0.0
    for start in range(0, len(ids) - size + 1, size):
        batch, target = (
            torch.tensor(part[start : start + size]).view(BATCH_ROWS, 512) for part in (ids, labels)
        )
        began = began or time.perf_counter()
        model(input_ids=batch, labels=target).loss.backward()
        model.zero_grad()
        count += int((target != -100).sum())
    return count / (time.perf_counter() - began)


def peer(packing: bool) -> float:
    """Trained tokens/s of TRL's SFTTrainer: its defaults, with or without its packing."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(threads())
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        on_train_end = on_train_begin

    pairs = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows()]
    with tempfile.TemporaryDirectory() as output:
        settings = SFTConfig(
            output_dir=output,
            num_train_epochs=1,
            # As many tokens a step as ours has: a packed sequence holds about eight rows.
            per_device_train_batch_size=1 if packing else BATCH_ROWS,
            packing=packing,
            max_length=PACKED_TOKENS,
            learning_rate=SETTINGS.learning_rate,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,  # the weights are; no automatic casts on top
            model_init_kwargs={"dtype": number_format()},
            report_to="none",
            save_strategy="no",
        )
        lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear")
        trainer = SFTTrainer(
            model=str(base_path()),
            args=settings,
            train_dataset=Dataset.from_list(pairs),
            peft_config=lora,
            callbacks=[Clock()],
        )
        dtype = getattr(torch, number_format())
        trainer.model.to(dtype)  # the adapter is in fp32 by PEFT's default
        trainer.train()
    return trained_tokens() / (times[1] - times[0])


def install_peer() -> None:
    """TRL in a folder of its own, where our packages stay as they are."""
    if not PEER_FOLDER.is_dir():
        uv = Path(sys.executable).with_name("uv")
        command = [str(uv), "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
        subprocess.run([*command, "--target", str(PEER_FOLDER), *PEER], check=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(PEER_FOLDER), os.environ.get("PYTHONPATH", "")])
    )


def measure(module: str, sides: Mapping[str, Callable[[], float]], note: str) -> None:
    """The entry of a measure, or, with a side's name as argument, that side's figure."""
    import json

    from tests.perf.measuring import alternately

    if arguments := sys.argv[1:]:
        print(sides[arguments[0]]())
        return
    values = alternately(module, "trained tokens/s")
    best = {side: max(found) for side, found in values.items()}
    model = f"SmolLM2-135M, LoRA, {number_format()}, {ROWS} rows, {threads()} cores"
    told = f"{model}; {note}; all runs: {values}"
    ratio = best["ours"] / best["reference"]
    print(json.dumps({**best, "ratio": ratio, "unit": "trained tokens/s", "note": told}))
