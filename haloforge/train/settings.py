"""Settings of training: the LoRA adapter and the loop."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from haloforge.errors import InputError
from haloforge.train.deepspeed_config import settings_from

MICRO_BATCH_TOKENS = {"gpu": 4096, "cpu": 1024}
# What no weight depends on, but for how sums are rounded.
NOT_LEARNED = {
    "workers",
    "micro_batch_size",
    "micro_batch_tokens",
    "gradient_checkpointing",
    "cpu_offload",
    "deepspeed",
    "zero_stage",
    "save_steps",
    "save_total_limit",
    "checkpoints",
    "max_restarts",
}


class LoraSettings(BaseModel):
    """The shape of a new adapter (LoRA, Hu et al. 2021); a continued adapter keeps its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"] = "all-linear"


class TrainSettings(BaseModel):
    """The training loop. Without `use_lora` all weights of the model are trained.

    `batch_size` is global: examples per optimizer step, over all workers. `max_length` is in
    tokens, prompt and answer together. `dtype` bf16 is computed as fp32 on a CPU that has no
    instructions for it (model/precision.py). Examples are packed end to end into sequences;
    `micro_batch_size` is in those, and None takes as many at once as fit in `micro_batch_tokens`,
    of which None is 4,096 on a GPU and 1,024 on a CPU: more are slower there, and take memory.

    `zero_stage` is DeepSpeed's (Rajbhandari et al. 2020): what the workers share out among them.
    `cpu_offload` keeps the optimizer, and at stage 3 the weights, in the host's memory,
    `gradient_checkpointing` computes activations twice instead of keeping them, `load_in_4bit`
    freezes the base in four bits (QLoRA). `deepspeed` is a DeepSpeed JSON of your own: what it says
    by a setting's own name here is taken from it, and refused where that was set otherwise.

    Held-out rows are validated on after each `eval_steps` (None: each epoch) and at the end; with
    `patience`, training stops after so many validations that were no better than the best, and the
    best weights are kept. A checkpoint is written each `save_steps`, and at each best validation;
    the newest `save_total_limit` and the best are kept until the run has ended. `checkpoints` is a
    folder on disk that all nodes share, or a URI such as s3://bucket/folder; None is beside the
    output. Workers that die are started again from the last checkpoint up to `max_restarts` times.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(3, gt=0, allow_inf_nan=False)
    batch_size: int = Field(8, ge=1)
    micro_batch_size: int | None = Field(None, ge=1)
    micro_batch_tokens: int | None = Field(None, ge=1)
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    max_length: int = Field(2048, ge=2)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    dtype: Literal["bf16", "fp32"] = "bf16"
    zero_stage: Literal[0, 1, 2, 3] = 0
    cpu_offload: bool = False
    gradient_checkpointing: bool = False
    load_in_4bit: bool = False
    deepspeed: str | None = None
    workers: int | None = Field(None, ge=1)
    eval_steps: int | None = Field(None, ge=1)
    patience: int | None = Field(None, ge=1)
    save_steps: int = Field(100, ge=1)
    save_total_limit: int = Field(2, ge=1)
    checkpoints: str | None = None
    max_restarts: int = Field(3, ge=0)
    seed: int = Field(0, ge=0)
    use_lora: bool = True
    lora: LoraSettings = LoraSettings()

    def of_stage(self, epochs: float | None, learning_rate: float | None) -> "TrainSettings":
        """These settings with a stage's own, where it has them. Raises InputError where they
        differ from those of the DeepSpeed JSON."""
        own = {"epochs": epochs, "learning_rate": learning_rate}
        given = {name: value for name, value in own.items() if value is not None}
        return TrainSettings.model_validate({**self.model_dump(), **given})

    def on(self, gpu: bool) -> "TrainSettings":
        """These settings with the tokens of a micro-batch that the device is best at."""
        best = MICRO_BATCH_TOKENS["gpu" if gpu else "cpu"]
        return self.model_copy(update={"micro_batch_tokens": self.micro_batch_tokens or best})

    @model_validator(mode="before")
    @classmethod
    def _from_deepspeed(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("deepspeed"):
            return settings_from(given["deepspeed"], given)
        return given

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        if self.cpu_offload and not self.zero_stage:
            raise InputError("train.cpu_offload needs train.zero_stage 1, 2 or 3")
        if self.load_in_4bit and self.zero_stage == 3:
            raise InputError("train.load_in_4bit: a base in four bits cannot be cut by ZeRO 3")
        if self.load_in_4bit and not self.use_lora:
            raise InputError("train.load_in_4bit: weights in four bits cannot be trained: use LoRA")
        return self
