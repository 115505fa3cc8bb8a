"""Settings of the benchmark: which problems, how many samples, which k."""

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def _usual_k(settings: dict[str, Any]) -> tuple[int, ...]:
    """1, 5 and 10, as far as there are samples for them."""
    return tuple(k for k in (1, 5, 10) if k <= settings.get("samples", 10))


class BenchmarkSettings(BaseModel):
    """One measurement of a model.

    `difficulty` takes the problems of these difficulties in `prompts` (empty: all), `exclude`
    leaves out those whose ids stand in that file (one a line, or JSON lines with `problem_id`), and
    `limit` takes a fixed subset of the rest. `temperature` stands in for `rollout.temperature`
    where it is given; with one sample a problem decoding is greedy. `k` is by default 1, 5 and 10,
    as far as `samples` allow. `resamples` is the number of bootstrap resamples behind each
    interval. `raw` judges each completion as it stands too, with nothing extracted.

    The next are for suites, which `prompts` names as `suite/NAME`: how the model is asked
    (`prompt_style`), the folder that holds their data or a folder for each (`data_dir`), and the
    first and last day of the problems of a suite that has dates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(None, ge=1)
    difficulty: list[str] = []
    exclude: str | None = None
    prompts: str = "starter/test"
    samples: int = Field(10, ge=1)
    k: tuple[int, ...] = Field(default_factory=_usual_k)
    temperature: float | None = Field(None, ge=0)
    resamples: int = Field(10_000, ge=100)
    raw: bool = True
    prompt_style: Literal["auto", "instruct", "base"] = "auto"
    data_dir: str | None = None
    from_date: date | None = None
    to_date: date | None = None
