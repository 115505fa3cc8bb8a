"""Does a configuration fit: who goes where, what each takes, and whether there is so much."""

from dataclasses import dataclass, field
from pathlib import Path

from haloforge.config import Settings
from haloforge.errors import InputError, ResourceError
from haloforge.placement import Fleet, Placement, place
from haloforge.plan.hours import Rates, Stage, cycle_samples, rates_of, stages_of
from haloforge.plan.memory import (
    GB,
    VLLM_SHARE,
    Host,
    Items,
    disk,
    engine_gpu,
    host,
    kv_bytes_per_token,
    trainer_gpu,
)
from haloforge.plan.nodes import Node, Seats, cluster_of, fleet_of, nodes_of, seat
from haloforge.plan.shape import Shape, shape_of


@dataclass(frozen=True)
class Plan:
    """Who goes where, and what it takes. Sizes are in bytes; those of GPUs are None on CPUs.

    `kv_sequences` is how many of `rollout.max_model_len` the KV cache of an engine holds.
    `hours_unknown` says why there are no `stages`, `misfits` what does not fit and what to change.
    """

    shape: Shape
    placement: Placement
    fleet: Fleet
    seats: list[Seats]
    engine_gpu: Items | None
    trainer_gpu: Items | None
    kv_sequences: float | None
    hosts: list[Host]
    disks: list[Items]
    rates: Rates
    stages: list[Stage]
    hours_unknown: str | None = None
    misfits: list[str] = field(default_factory=list)

    def require_fit(self) -> None:
        """Raises ResourceError for the first thing that does not fit."""
        if self.misfits:
            raise ResourceError(self.misfits[0])


def plan(settings: Settings, measured: Path | None = None) -> Plan:
    """The plan for the machines that `settings.plan` describes, with the rates of the RAFT run in
    `measured`, if that is given. Raises what `plan_on` raises."""
    return plan_on(nodes_of(settings.plan), settings, measured)


def plan_on(nodes: list[Node], settings: Settings, measured: Path | None = None) -> Plan:
    """The plan for `nodes`, which may be those of a living cluster.

    Raises ResourceError where the actors have no room there, InputError where the model's form is
    not known or no engine can be cut or as long as asked for.
    """
    cluster, rollout = cluster_of(nodes), settings.rollout
    placement = place(
        cluster, rollout.engines, rollout.tensor_parallel, settings.train.workers, rollout.placement
    )
    judges = fleet_of(nodes, settings.verify)
    seats = seat(nodes, placement, judges, settings.verify)
    shape = shape_of(settings)
    _check_shape(shape, settings)
    on_gpu = cluster.gpus > 0
    each = min(node.gpu_memory_gb for node in nodes if node.gpus) if on_gpu else 0.0
    engine = engine_gpu(shape, settings, each) if on_gpu else None
    trainer, in_host = trainer_gpu(shape, settings, placement)
    rates = rates_of(settings, measured)
    samples, stages, unknown = 0, [], None
    try:
        samples = cycle_samples(settings)
        cpus = sum(place.node.cpus for place in seats if place.verifiers)
        stages = stages_of(settings, placement, cpus, rates)
    except InputError as error:  # the problems may be at hand only where the run will be
        unknown = str(error)
    kept_by_trainer = in_host if on_gpu else {**in_host, **trainer}
    found = Plan(
        shape=shape,
        placement=placement,
        fleet=judges,
        seats=seats,
        engine_gpu=engine,
        trainer_gpu=trainer if on_gpu else None,
        kv_sequences=_sequences(engine, shape, settings) if engine else None,
        hosts=[host(place, shape, settings, placement, kept_by_trainer) for place in seats],
        disks=[disk(place, shape, settings, samples, rates.answer_tokens) for place in seats],
        rates=rates,
        stages=stages,
        hours_unknown=unknown,
    )
    found.misfits.extend(_misfits(found, settings, each))
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


def _misfits(found: Plan, settings: Settings, gpu_gb: float) -> list[str]:
    misfits = []
    if found.engine_gpu is not None and found.kv_sequences is not None:
        misfits += _engine_misfit(found, found.engine_gpu, found.kv_sequences, settings, gpu_gb)
    if found.trainer_gpu is not None:
        misfits += _trainer_misfit(found, found.trainer_gpu, settings, gpu_gb)
    for seats, needs in zip(found.seats, found.hosts, strict=True):
        phase, most = needs.most
        if most > seats.node.memory_gb * GB:
            misfits.append(
                f"to {phase}, a node with {seats.engines} engines and {seats.trainers} trainers "
                f"takes {most / GB:.0f} GB of memory ({_listed(needs.phases[phase])}); it has "
                f"{seats.node.memory_gb:.0f}: {_ADVICE[phase]}"
            )
            break
    limit = settings.plan.disk_gb
    total = max(sum(items.values()) for items in found.disks)
    if limit is not None and total > limit * GB:
        largest = max(found.disks, key=lambda items: sum(items.values()))
        misfits.append(
            f"a node takes {total / GB:.0f} GB of disk ({_listed(largest)}); it has {limit:g}"
        )
    return misfits


_ADVICE = {
    "sample": "lower verify.max_actors or verify.compile_memory_mb, or rollout.engines",
    "swap the policy": "lower rollout.engines, raise rollout.tensor_parallel, or set "
    "rollout.policy_swap=lora",
    "train": "lower train.workers, or set train.zero_stage=3",
}


def _engine_misfit(
    found: Plan, engine: Items, sequences: float, settings: Settings, gpu_gb: float
) -> list[str]:
    rollout, shape = settings.rollout, found.shape
    one = kv_bytes_per_token(shape, settings) * rollout.max_model_len
    rest = sum(engine.values()) - engine["KV cache"]
    shorter = "lower rollout.max_model_len or rollout.max_num_seqs"
    cuts = [n for n in (2, 4, 8) if n > rollout.tensor_parallel and shape.heads % n == 0]
    apart = " (with rollout.placement=disaggregated)" if found.placement.engines_sleep else ""
    advice = shorter
    if cuts:
        advice = f"raise rollout.tensor_parallel to {cuts[0]}{apart}, or {shorter}"
    usable = gpu_gb * GB * (1 if rollout.kv_cache_gb else VLLM_SHARE)
    on_each = f"on each of its {rollout.tensor_parallel} GPUs"
    if rest + one > usable:
        return [
            f"an engine needs {rest / GB:.1f} GB ({engine['weights'] / GB:.1f} of them weights) "
            f"and at least {one / GB:.2f} GB of KV cache, for one sequence of "
            f"{rollout.max_model_len} tokens, {on_each}; of each it can have {usable / GB:.1f} GB: "
            f"{advice}"
        ]
    if sequences < 1:
        return [
            f"rollout.kv_cache_gb={rollout.kv_cache_gb:g} holds no sequence of "
            f"{rollout.max_model_len} tokens, which takes {one / GB:.2f} GB {on_each}: raise it, "
            "or lower rollout.max_model_len"
        ]
    if rest + engine["KV cache"] > usable:
        return [
            f"an engine takes {(rest + engine['KV cache']) / GB:.1f} GB {on_each} "
            f"({_listed(engine)}); each has {gpu_gb:g}: lower rollout.kv_cache_gb, or {advice}"
        ]
    return []


def _trainer_misfit(found: Plan, trainer: Items, settings: Settings, gpu_gb: float) -> list[str]:
    total, train = sum(trainer.values()), settings.train
    if total <= gpu_gb * GB:
        return []
    ways = ["lower train.max_length and train.micro_batch_tokens"]
    if not train.gradient_checkpointing:
        ways.insert(0, "set train.gradient_checkpointing=true")
    if train.zero_stage < 3 and not train.load_in_4bit and found.placement.trainers > 1:
        ways.append("set train.zero_stage=3")
    if not train.load_in_4bit and train.use_lora:
        ways.append("set train.load_in_4bit=true")
    return [
        f"a trainer takes {total / GB:.1f} GB of its GPU ({_listed(trainer)}); it has "
        f"{gpu_gb:g}: {', '.join(ways)}"
    ]


def _listed(items: Items) -> str:
    shown = sorted(items.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {size / GB:.1f}" for name, size in shown if size > 0.05 * GB)
