"""Settings of the plan: the machines and the rates that it reckons with."""

from pydantic import BaseModel, ConfigDict, Field


class PlanSettings(BaseModel):
    """What `halo-forge plan` reckons with. No run reads any of it, and none is told apart by it.

    `nodes` are those that engines and trainers run on, with `gpus_per_node` GPUs of `gpu_memory_gb`
    each (0 GPUs: all on CPUs), `cpus_per_node` and `node_memory_gb` (None: those of this machine);
    `verifier_nodes` have no GPU, `verifier_cpus` CPUs and
    `verifier_memory_gb` (None: `node_memory_gb`) each. Memory is in units of 2^30 bytes:
    a card sold as 80 GB has 79 of them. `disk_gb` is the free disk of a node (None: not checked).

    `architecture` is a `config.json` (or its folder) of the base, where it is not at hand.

    Rates for the estimate of hours: tokens/s that one engine generates and that one trainer trains
    on (of answers, no prompt), programs/s that one CPU of the verifiers judges, and the mean tokens
    of an answer. Where a rate is None it is taken from the measured run that `--rates-from` names,
    and without that no hours are told; None for `answer_tokens` is then `rollout.max_tokens`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    gpu_memory_gb: float = Field(79, gt=0)
    cpus_per_node: int | None = Field(None, ge=1)
    node_memory_gb: float | None = Field(None, gt=0)
    disk_gb: float | None = Field(None, gt=0)
    verifier_nodes: int = Field(0, ge=0)
    verifier_cpus: int = Field(16, ge=1)
    verifier_memory_gb: float | None = Field(None, gt=0)
    architecture: str | None = None
    engine_tokens_per_s: float | None = Field(None, gt=0)
    trainer_tokens_per_s: float | None = Field(None, gt=0)
    programs_per_s: float | None = Field(None, gt=0)
    answer_tokens: float | None = Field(None, gt=0)
