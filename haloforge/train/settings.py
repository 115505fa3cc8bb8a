"""Settings of training: the LoRA adapter and the loop."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class LoraSettings(BaseModel):
    """The shape of a new adapter (LoRA, Hu et al. 2021); a continued adapter keeps its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"] = "all-linear"


class TrainSettings(BaseModel):
    """The training loop.

    `batch_size` is global: examples per optimizer step, over all workers. `max_length` is in
    tokens, prompt and answer together. `micro_batch_size` None takes as many examples at once
    as fit in 4,096 padded tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(3, gt=0, allow_inf_nan=False)
    batch_size: int = Field(8, ge=1)
    micro_batch_size: int | None = Field(None, ge=1)
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    max_length: int = Field(2048, ge=2)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    dtype: Literal["bf16", "fp32"] = "bf16"
    zero_stage: Literal[0, 1, 2, 3] = 0
    workers: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    lora: LoraSettings = LoraSettings()
