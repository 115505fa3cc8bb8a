"""Does a model fit the memory of the GPUs and nodes on which its engines and trainers are."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from haloforge.config import Settings
from haloforge.errors import InputError
from haloforge.placement import Placement
from haloforge.plan.memory import (
    GB,
    PROCESS_GB,
    VLLM_SHARE,
    Host,
    Items,
    engine_gpu,
    host,
    kv_bytes_per_token,
    trainer_gpu,
)
from haloforge.plan.nodes import Seats
from haloforge.plan.shape import Shape


@dataclass(frozen=True)
class Memory:
    """What a model takes of the memory of GPUs and nodes, in bytes; of GPUs it is None on CPUs.

    `kv_sequences` is how many of `rollout.max_model_len` the KV cache of an engine holds. `misfits`
    says what does not fit and what to change, by what it is for: `engine`, `trainer`, or the phase
    in which a node has too little.
    """

    shape: Shape
    engine_gpu: Items | None
    trainer_gpu: Items | None
    kv_sequences: float | None
    hosts: list[Host]
    misfits: dict[str, str] = field(default_factory=dict)


def memory_of(
    shape: Shape,
    seats: list[Seats],
    placement: Placement,
    settings: Settings,
    process_gb: float = PROCESS_GB,
) -> Memory:
    """What a model of this shape takes of the memory of GPUs and nodes, where all have a seat.
    `process_gb` is what an engine's or trainer's process takes beside it.

    Raises InputError where no engine can be cut or as long as asked for.
    """
    _check_shape(shape, settings)
    gpus = [place.node.gpu_memory_gb for place in seats if place.node.gpus]
    smallest = min(gpus, default=0.0)
    engine = engine_gpu(shape, settings, smallest) if gpus else None
    trainer, in_host = trainer_gpu(shape, settings, placement)
    kept_by_trainer = in_host if gpus else {**in_host, **trainer}
    found = Memory(
        shape=shape,
        engine_gpu=engine,
        trainer_gpu=trainer if gpus else None,
        kv_sequences=_sequences(engine, shape, settings) if engine else None,
        hosts=[
            host(place, shape, settings, placement, kept_by_trainer, process_gb) for place in seats
        ],
    )
    found.misfits.update(_misfits(found, seats, placement, settings, smallest))
    return found


def _sequences(engine: Items, shape: Shape, settings: Settings) -> float:
    each = kv_bytes_per_token(shape, settings) * settings.rollout.max_model_len
    return max(0.0, engine["KV cache"]) / each


def _check_shape(shape: Shape, settings: Settings) -> None:
    """What vLLM would refuse when it starts."""
    rollout = settings.rollout
    if shape.heads % rollout.tensor_parallel:
        fitting = [n for n in range(1, 9) if shape.heads % n == 0]
        raise InputError(
            f"rollout.tensor_parallel={rollout.tensor_parallel} cannot share out the "
            f"{shape.heads} attention heads of {shape.name}: one of {fitting} can"
        )
    if rollout.max_model_len > shape.max_positions:
        raise InputError(
            f"rollout.max_model_len={rollout.max_model_len} is more than the "
            f"{shape.max_positions} positions that {shape.name} knows"
        )


def _misfits(
    found: Memory, seats: list[Seats], placement: Placement, settings: Settings, gpu_gb: float
) -> Iterator[tuple[str, str]]:
    if found.engine_gpu is not None and found.kv_sequences is not None:
        told = _engine_misfit(found, found.engine_gpu, placement, settings, gpu_gb)
        if told:
            yield "engine", told
    if found.trainer_gpu is not None:
        told = _trainer_misfit(found.trainer_gpu, placement, settings, gpu_gb)
        if told:
            yield "trainer", told
    for here, needs in zip(seats, found.hosts, strict=True):
        for phase, items in needs.phases.items():
            total = sum(items.values())
            if total > here.node.memory_gb * GB:
                yield (
                    phase,
                    f"to {phase}, a node with {here.engines} engines and {here.trainers} "
                    f"trainers takes {total / GB:.0f} GB of memory ({listed(items)}); it has "
                    f"{here.node.memory_gb:.0f}: {_ADVICE[phase]}",
                )


_ADVICE = {
    "sample": "lower verify.max_actors or verify.compile_memory_mb, or rollout.engines",
    "swap the policy": "lower rollout.engines, raise rollout.tensor_parallel, or set "
    "rollout.policy_swap=lora",
    "train": "lower train.workers, or set train.zero_stage=3",
}


def _engine_misfit(
    found: Memory, engine: Items, placement: Placement, settings: Settings, gpu_gb: float
) -> str | None:
    rollout, shape = settings.rollout, found.shape
    one = kv_bytes_per_token(shape, settings) * rollout.max_model_len
    rest = sum(engine.values()) - engine["KV cache"]
    shorter = "lower rollout.max_model_len or rollout.max_num_seqs"
    cuts = [n for n in (2, 4, 8) if n > rollout.tensor_parallel and shape.heads % n == 0]
    apart = " (with rollout.placement=disaggregated)" if placement.engines_sleep else ""
    advice = shorter
    if cuts:
        advice = f"raise rollout.tensor_parallel to {cuts[0]}{apart}, or {shorter}"
    usable = gpu_gb * GB * (1 if rollout.kv_cache_gb else VLLM_SHARE)
    on_each = f"on each of its {rollout.tensor_parallel} GPUs"
    if rest + one > usable:
        return (
            f"an engine needs {rest / GB:.1f} GB ({engine['weights'] / GB:.1f} of them weights) "
            f"and at least {one / GB:.2f} GB of KV cache, for one sequence of "
            f"{rollout.max_model_len} tokens, {on_each}; of each it can have {usable / GB:.1f} GB: "
            f"{advice}"
        )
    if (found.kv_sequences or 0) < 1:
        return (
            f"rollout.kv_cache_gb={rollout.kv_cache_gb:g} holds no sequence of "
            f"{rollout.max_model_len} tokens, which takes {one / GB:.2f} GB {on_each}: raise it, "
            "or lower rollout.max_model_len"
        )
    if rest + engine["KV cache"] > usable:
        return (
            f"an engine takes {(rest + engine['KV cache']) / GB:.1f} GB {on_each} "
            f"({listed(engine)}); each has {gpu_gb:g}: lower rollout.kv_cache_gb, or {advice}"
        )
    return None


def _trainer_misfit(
    trainer: Items, placement: Placement, settings: Settings, gpu_gb: float
) -> str | None:
    total, train = sum(trainer.values()), settings.train
    if total <= gpu_gb * GB:
        return None
    ways = ["lower train.max_length and train.micro_batch_tokens"]
    if not train.gradient_checkpointing:
        ways.insert(0, "set train.gradient_checkpointing=true")
    if train.zero_stage < 3 and not train.load_in_4bit and placement.trainers > 1:
        ways.append("set train.zero_stage=3")
    if not train.load_in_4bit and train.use_lora:
        ways.append("set train.load_in_4bit=true")
    return (
        f"a trainer takes {total / GB:.1f} GB of its GPU ({listed(trainer)}); it has "
        f"{gpu_gb:g}: {', '.join(ways)}"
    )


def listed(items: Items) -> str:
    """The items in GB (2^30 bytes), the largest first; those below 0.05 are left out."""
    shown = sorted(items.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {size / GB:.1f}" for name, size in shown if size > 0.05 * GB)
