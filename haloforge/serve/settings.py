"""Settings of serving; how each engine runs is `rollout`'s."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ServeSettings(BaseModel):
    """What is served, where, and by how many replicas.

    `models` are bases, adapters, or folders of RAFT runs, whose adapters are served as they come;
    each may be written NAME=MODEL. `require_key` refuses to start without an API key in the
    environment (HALOFORGE_API_KEY). Each base has `min_replicas` to `max_replicas` engines, as many
    as keep the requests that each has under way near `target_ongoing_requests` (None: as many as it
    computes at once, `rollout.max_num_seqs`); a replica is added after `upscale_delay_s` seconds of
    more, taken away after `downscale_delay_s` seconds of less. A replica keeps `max_adapters` in
    memory, of which `max_loras` answer in the same moment; those that come later may have a rank up
    to `max_lora_rank` (None: that of the largest that is there, at least `train.lora.rank`). Pages
    of `allow_origins`, such as https://chat.example.org, may ask from a browser.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[str] = []
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    require_key: bool = False
    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float | None = Field(None, gt=0)
    upscale_delay_s: float = Field(30, ge=0)
    downscale_delay_s: float = Field(600, ge=0)
    max_adapters: int = Field(16, ge=1)
    max_loras: int = Field(4, ge=1)
    max_lora_rank: int | None = Field(None, ge=1)
    allow_origins: list[str] = []

    @model_validator(mode="after")
    def _ordered(self) -> "ServeSettings":
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas={self.min_replicas} is more than max_replicas={self.max_replicas}"
            )
        if self.max_loras > self.max_adapters:
            raise ValueError(
                f"max_loras={self.max_loras} is more than max_adapters={self.max_adapters}"
            )
        return self
