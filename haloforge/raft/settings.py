"""Settings of RAFT: how many cycles, and what is kept of their samples."""

from pydantic import BaseModel, ConfigDict, Field


class RaftSettings(BaseModel):
    """RAFT (Dong et al. 2023): sample, judge, keep the best, train on them, repeat.

    `prompts` is a source of problems, of which `difficulty` takes those of these difficulties
    (empty: all), `exclude` leaves out those whose ids stand in that file (one a line, or JSON lines
    with `problem_id`), and `limit` takes a fixed subset. `checkpoint` is the model to start from
    (None: the base).
    `keep_top_percent` is a fraction in (0, 1] of a problem's samples at or above
    `reward_threshold`, rounded up. `temperature`, `epochs` and `learning_rate` stand in for
    `rollout.temperature`, `train.epochs` and `train.learning_rate` where they are given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(None, ge=1)
    difficulty: list[str] = []
    exclude: str | None = None
    prompts: str = "starter"
    checkpoint: str | None = None
    output: str = "models/raft"
    cycles: int = Field(5, ge=1)
    samples_per_prompt: int = Field(8, ge=1)
    reward_threshold: float = Field(0.5, gt=0, le=1)
    keep_top_percent: float = Field(0.5, gt=0, le=1)
    temperature: float | None = Field(None, ge=0)
    epochs: float | None = Field(None, gt=0)
    learning_rate: float | None = Field(None, gt=0)
