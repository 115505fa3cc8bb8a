"""RAFT as a careful user writes it with transformers and peft alone: the peer of raft_vs_plain.

Tuned as far as one goes without other engines: batches of 64, prompts sorted by length and
padded on the left, a stop at the closing fence, all cores, compilers in a thread pool; batches of
training grouped by length and padded to their longest.
"""

import math
import os
import re
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    StoppingCriteria,
    StoppingCriteriaList,
    Trainer,
    TrainingArguments,
)

from haloforge.data.chat import encode_example, end_of_turn_ids, render_prompt
from haloforge.data.problems import answer_start
from haloforge.rollout.engine import FENCE_LINE, block_is_open
from haloforge.rollout.settings import Sampling
from haloforge.schema import Problem
from haloforge.train.settings import TrainSettings

BATCH = 64
CODE = re.compile(r"```\w*\n(.*?)\n```", re.S)
COMPILER = ("g++", "-std=c++17", "-Wall", "-Wextra", "-o", "program", "main.cpp")
COMPILE_S = 10


@dataclass
class Answer:
    """One completion; `whole` unless it was cut at the limit of tokens."""

    problem: Problem
    text: str
    tokens: int
    whole: bool


@dataclass
class Spent:
    """What a run took: seconds by stage, and the units that were done in them."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    units: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[stage] += time.monotonic() - began


class AtFence(StoppingCriteria):
    """Ends each sequence where its first code block closes."""

    def __init__(self, tokenizer: Any, starts: Sequence[str], prompt_length: int) -> None:
        self._tokenizer, self._starts, self._length = tokenizer, starts, prompt_length

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        ends = self._tokenizer.batch_decode(input_ids[:, max(self._length, -6) :][:, -6:])
        return torch.tensor([FENCE_LINE in end and self._closed(input_ids, row)
                             for row, end in enumerate(ends)])  # fmt: skip

    def _closed(self, input_ids: Any, row: int) -> bool:
        return not block_is_open(
            self._starts[row] + self._tokenizer.decode(input_ids[row, self._length :])
        )


def plain_raft(
    base: Path,
    problems: Sequence[Problem],
    samples: int,
    cycles: int,
    sampling: Sampling,
    training: TrainSettings,
    keep_top: float,
    output: Path,
) -> Spent:
    """Runs the cycles, each with the model read from disk; the last adapter is in `output`."""
    torch.set_num_threads(os.cpu_count() or 1)
    spent = Spent()
    adapters: list[Path] = []
    tokenizer = AutoTokenizer.from_pretrained(base)
    dtype = torch.bfloat16 if training.dtype == "bf16" else torch.float32
    for cycle in range(1, cycles + 1):
        with spent.on("reload"):
            model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
            for adapter in adapters:
                model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        with spent.on("generate"):
            answers = generate(model, tokenizer, problems, samples, sampling)
        with spent.on("verify"), ThreadPoolExecutor(os.cpu_count()) as pool:
            verdicts = list(pool.map(compiles, (answer.text for answer in answers)))
        with spent.on("select"):
            kept = best(answers, verdicts, keep_top)
        with spent.on("train"):
            adapters.append(output / f"cycle_{cycle}")
            spent.units["trained tokens"] += train(model, tokenizer, kept, training, adapters[-1])
        spent.units["tokens"] += sum(answer.tokens for answer in answers)
        spent.units["compile"] += sum(verdicts)
        spent.units["samples"] += len(answers)
        spent.units["kept"] += len(kept)
    return spent


def generate(
    model: Any, tokenizer: Any, problems: Sequence[Problem], samples: int, sampling: Sampling
) -> list[Answer]:
    """`samples` answers to each problem, drawn in batches of prompts of like lengths."""
    model.eval()
    asked = [
        (problem, render_prompt(tokenizer, problem.turns(), answer_start(problem)))
        for problem in problems
        for _ in range(samples)
    ]
    asked.sort(key=lambda each: len(each[1]))
    answers = []
    for first in range(0, len(asked), BATCH):
        answers += _batch(model, tokenizer, asked[first : first + BATCH], sampling)
    return answers


def _batch(
    model: Any, tokenizer: Any, asked: Sequence[tuple[Problem, list[int]]], sampling: Sampling
) -> list[Answer]:
    prompts = [{"input_ids": ids} for _, ids in asked]
    starts = [answer_start(problem) for problem, _ in asked]
    inputs = tokenizer.pad(prompts, padding_side="left", return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    ends = end_of_turn_ids(tokenizer)
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=ends,
            pad_token_id=ends[0],
            stopping_criteria=StoppingCriteriaList([AtFence(tokenizer, starts, length)]),
        )
    answers = []
    for (problem, _), start, row in zip(asked, starts, output[:, length:].tolist(), strict=True):
        written = next((place for place, token in enumerate(row) if token in ends), len(row))
        text = start + tokenizer.decode(row[:written])
        whole = written < sampling.max_tokens or FENCE_LINE in text[len(start) :]
        answers.append(Answer(problem, text, written, whole))
    return answers


def compiles(text: str) -> bool:
    """Whether g++ makes a program of the answer's code, and does not warn. It is not run: there is
    no sandbox here."""
    code = CODE.search(text)
    if code is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.cpp").write_text(code[1] + "\n")
        try:
            done = subprocess.run(COMPILER, cwd=folder, capture_output=True, timeout=COMPILE_S)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and not done.stderr


def best(answers: Sequence[Answer], verdicts: Sequence[bool], keep_top: float) -> list[Answer]:
    """The share `keep_top` of each problem's different answers that compile, rounded up."""
    good: dict[str, dict[str, Answer]] = defaultdict(dict)
    for answer, verdict in zip(answers, verdicts, strict=True):
        if verdict and answer.whole:
            good[answer.problem.problem_id].setdefault(answer.text.strip(), answer)
    return [
        answer
        for different in good.values()
        for answer in list(different.values())[: math.ceil(keep_top * len(different))]
    ]


def train(
    model: Any, tokenizer: Any, kept: Sequence[Answer], settings: TrainSettings, target: Path
) -> int:
    """Trains a new adapter on the answers, saves it in `target`; returns the trained tokens."""
    rows = []
    for answer in kept:
        reply = {"role": "assistant", "content": answer.text.strip()}
        example = encode_example(tokenizer, [*answer.problem.turns(), reply], settings.max_length)
        assert example is not None
        pairs = zip(example.input_ids, example.trained, strict=True)
        labels = [token if learned else -100 for token, learned in pairs]
        rows.append({"input_ids": example.input_ids, "labels": labels})
    lora = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=settings.lora.target_modules,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup_ratio,  # a share, below 1
            train_sampling_strategy="group_by_length",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        ).train()
    model.save_pretrained(target)
    return sum(label != -100 for row in rows for label in row["labels"])
