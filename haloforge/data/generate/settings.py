"""Settings of `data generate`: how an LLM is asked, and what of its answers is kept."""

from pydantic import BaseModel, ConfigDict, Field

ASKING = {"in_flight", "requests_per_minute", "max_tokens", "timeout_s", "retries", "similar"}
"""How requests are sent, and what is kept of the answers, which no answer depends on."""


class GenerateSettings(BaseModel):
    """How an LLM is asked for problems."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(None, ge=0, le=2)
    """None leaves it to the server: some models take no other than theirs."""
    answer_tokens: int = Field(8192, ge=64)
    """Most tokens of one answer, its reasoning included."""
    in_flight: int = Field(16, ge=1, le=1024)
    """Requests that wait for their answer at once."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Requests that are sent in a minute at most, those sent again included."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens that all answers of an output may cost, read and written, over all sittings."""
    timeout_s: float = Field(300, gt=0)
    """How long one answer is waited for."""
    retries: int = Field(6, ge=0)
    """How often a request is sent again after a failure that may pass."""
    similar: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity from which on a row is a near duplicate of an earlier one."""
