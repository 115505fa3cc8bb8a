"""Settings of RAFT: how many cycles, and what is kept of their samples."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from haloforge.errors import InputError

_Share = Annotated[float, Field(ge=0, le=1)]


class RaftSettings(BaseModel):
    """RAFT (Dong et al. 2023): sample, judge, keep the best, train on them, repeat.

    `prompts` is a source of problems, of which `difficulty` takes those of these difficulties
    (empty: all), `exclude` leaves out those whose ids stand in that file (one a line, or JSON lines
    with `problem_id`), and `limit` takes a fixed subset. `checkpoint` is the model to start from
    (None: the base).
    `keep_top_percent` is a fraction in (0, 1] of a problem's samples at or above
    `reward_threshold`, rounded up. `temperature` and `epochs` stand in for `rollout.temperature`
    and `train.epochs` where they are given. `learning_rate` is that of the first cycle: where it is
    not given that of `train` if that is, else 5e-5 (config.py). It is multiplied by
    `learning_rate_decay` from cycle to cycle, and does not fall below `min_learning_rate`.

    `drop_solved_by_all` and `drop_solved_by_none` leave out problems that all or none of their
    samples solve, `max_per_problem` and `max_train_samples` cap what is trained on of a problem and
    of all, the best first. `train_on` says whether a cycle trains on its own samples or, after
    those, on what `all` earlier cycles had chosen too. With fewer than `min_samples` the run stops.

    With `curriculum` `historical` a problem whose latest pass rate lies outside
    `curriculum_bounds` (both inclusive) rests for `curriculum_rest` cycles and is measured again
    then. `history` is the `pass_rates.jsonl` of an earlier run, or its folder.

    `eval_prompts` is a source of problems that are never trained on, of which each cycle's policy
    is scored on `eval_samples` answers each, by the settings of the benchmark otherwise. With
    `patience` the run stops when so many cycles have brought no better score.
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
    drop_solved_by_all: bool = False
    drop_solved_by_none: bool = False
    max_per_problem: int | None = Field(None, ge=1)
    max_train_samples: int | None = Field(None, ge=1)
    min_samples: int = Field(1, ge=1)
    train_on: Literal["cycle", "all"] = "cycle"
    curriculum: Literal["none", "historical"] = "none"
    curriculum_bounds: tuple[_Share, _Share] = (0.1, 0.9)
    curriculum_rest: int = Field(2, ge=0)
    history: str | None = None
    temperature: float | None = Field(None, ge=0)
    epochs: float | None = Field(None, gt=0)
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    learning_rate_decay: float = Field(0.85, gt=0, le=1)
    min_learning_rate: float = Field(1e-6, gt=0, allow_inf_nan=False)
    eval_prompts: str | None = None
    eval_samples: int = Field(4, ge=1)
    patience: int | None = Field(None, ge=1)

    def learning_rate_of(self, cycle: int, first: float) -> float:
        """The learning rate of `cycle`, which counts from 1, where that of cycle 1 is `first`."""
        floor = min(self.min_learning_rate, first)
        return max(floor, first * self.learning_rate_decay ** (cycle - 1))

    @model_validator(mode="after")
    def _whole(self) -> "RaftSettings":
        if self.curriculum == "none":
            for name in ("curriculum_bounds", "curriculum_rest", "history"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise InputError(f"raft.{name} needs raft.curriculum=historical")
        if self.patience is not None and self.eval_prompts is None:
            raise InputError("raft.patience needs raft.eval_prompts: it goes by their score")
        low, high = self.curriculum_bounds
        if low > high:
            raise InputError(f"raft.curriculum_bounds: {low:g} is above {high:g}")
        if self.max_train_samples is not None and self.max_train_samples < self.min_samples:
            raise InputError("raft.max_train_samples is less than raft.min_samples")
        return self
