"""A plan as text, and as values for JSON."""

from dataclasses import asdict
from itertools import groupby
from typing import Any

from haloforge.config import Settings
from haloforge.plan.fit import Plan
from haloforge.plan.hours import Stage
from haloforge.plan.memory import GB, Items
from haloforge.plan.nodes import Seats


def plan_text(found: Plan, settings: Settings) -> str:
    """For a reader. GB are 2^30 bytes."""
    shape, place = found.memory.shape, found.placement
    parts = [
        f"{shape.name}: {shape.parameters:,} parameters, {shape.size.trained:,} of "
        f"{shape.size.parameters:,} train (form: {shape.source})",
        "",
        "Where (Ray may spread it otherwise):",
        *_where(found),
    ]
    if found.memory.engine_gpu is not None and found.memory.trainer_gpu is not None:
        each = min(seats.node.gpu_memory_gb for seats in found.seats if seats.node.gpus)
        turns = ", in turn with its trainer" if place.engines_sleep else ""
        parts += _items(f"Each GPU of an engine{turns}", found.memory.engine_gpu, each)
        parts.append(
            f"  the KV cache of an engine holds {found.memory.kv_sequences:.1f} sequences of "
            f"{settings.rollout.max_model_len} tokens (rollout.max_num_seqs is "
            f"{settings.rollout.max_num_seqs})"
        )
        parts += _items("GPU of a trainer", found.memory.trainer_gpu, each)
    fullest = max(range(len(found.memory.hosts)), key=lambda n: found.memory.hosts[n].most[1])
    phase, _ = found.memory.hosts[fullest].most
    parts += _items(
        f"Memory of node {fullest + 1}, the fullest, to {phase}",
        found.memory.hosts[fullest].phases[phase],
        found.seats[fullest].node.memory_gb,
    )
    largest = max(found.disks, key=lambda items: sum(items.values()))
    parts += _items("Disk, all on one", largest, settings.plan.disk_gb)
    parts += ["", *_hours(found)]
    parts += ["", "Sizes are estimates, but for weights, KV cache, gradients and optimizer states."]
    return "\n".join(parts)


def _where(found: Plan) -> list[str]:
    lines, first = [], 1
    for _, same in groupby(found.seats, key=_kind):
        alike = list(same)
        last = first + len(alike) - 1
        nodes = f"node {first}" if first == last else f"nodes {first}-{last}, each"
        lines.append(f"  {nodes}: {_seats(alike[0], found)}")
        first = last + 1
    return lines


def _kind(seats: Seats) -> tuple[Any, ...]:
    return seats.node, seats.engines, seats.trainers, seats.verifiers


def _seats(seats: Seats, found: Plan) -> str:
    place = found.placement
    booked = [
        ("engine", seats.engines, _booked(place.gpus_per_engine, place.cpus_per_engine)),
        ("trainer", seats.trainers, _booked(place.gpus_per_trainer, place.cpus_per_trainer)),
        ("verifier", seats.verifiers, f"{found.fleet.cpus_per_actor:.2g} CPUs"),
    ]
    parts = [
        f"{'up to ' * (name == 'verifier')}{count} {name}{'s' * (count > 1)} of {each}"
        for name, count, each in booked
        if count
    ]
    free = sum(left > 0.99 for left in seats.gpus)
    return ", ".join(parts or ["nothing"]) + (f"; {free} GPUs idle" if free else "")


def _booked(gpus: float, cpus: float) -> str:
    return f"{gpus:g} GPU and {cpus:g} CPUs" if gpus else f"{cpus:g} CPUs"


def _items(title: str, items: Items, limit_gb: float | None) -> list[str]:
    """GB by what for, and their sum."""
    rows = {**items, "in all": sum(items.values())}
    width = max(map(len, rows))
    lines = [f"  {name:<{width}}  {size / GB:8.2f} GB" for name, size in rows.items()]
    return ["", f"{title}:", *lines[:-1], lines[-1] + (f" of {limit_gb:.0f}" if limit_gb else "")]


def _hours(found: Plan) -> list[str]:
    if found.hours_unknown:
        return [f"Work and hours: not estimated: {found.hours_unknown}"]
    rates = found.rates
    told = [f"an answer has {rates.answer_tokens:.0f} tokens"]
    if rates.engine:
        told.append(f"an engine generates {rates.engine:.0f} tokens/s")
    if rates.trainer:
        told.append(f"a trainer trains on {rates.trainer:.0f} tokens/s")
    if rates.programs:
        told.append(f"a CPU judges {rates.programs:g} programs/s")
    source = f" (from {rates.source})" if rates.source else ""
    if rates.kept is not None:
        told.append(f"{rates.kept:.0%} of the samples are trained on")
    lines = [f"Work, at most, where {', '.join(told)}{source}:"]
    lines += [f"  {_stage(stage)}" for stage in found.stages]
    known = [stage for stage in found.stages if stage.hours is not None]
    missing = [
        name
        for name, rate in (
            ("engine_tokens_per_s", rates.engine),
            ("trainer_tokens_per_s", rates.trainer),
            ("programs_per_s", rates.programs),
        )
        if not rate
    ]
    if known:
        total = sum(stage.times * (stage.hours or 0) for stage in known)
        lines.append(f"  the whole pipeline: {total:.2f} h")
    if missing:
        lines.append(f"  not in the hours, as no rate is known: plan.{', plan.'.join(missing)}")
    return lines


def _stage(stage: Stage) -> str:
    parts = []
    if stage.samples:
        parts.append(f"{stage.samples:,} samples, {stage.generated_tokens:,.0f} tokens to generate")
    if stage.trained_tokens:
        parts.append(f"{stage.trained_tokens:,.0f} to train on")
    named = {"generate": stage.generate, "verify": stage.verify, "train": stage.train}
    hours = ", ".join(f"{name} {part:.2f}" for name, part in named.items() if part is not None)
    told = f"; {stage.hours:.2f} h ({hours})" if stage.hours is not None else ""
    times = f" x {stage.times}" if stage.times > 1 else ""
    return f"{stage.name}{times}: {', '.join(parts)}{told}"


def plan_json(found: Plan) -> dict[str, Any]:
    """All of it, with sizes in bytes and hours."""
    return {
        "model": {
            "name": found.memory.shape.name,
            "source": found.memory.shape.source,
            "parameters": found.memory.shape.parameters,
            "trained": found.memory.shape.size.trained,
        },
        "placement": asdict(found.placement),
        "verifiers": asdict(found.fleet),
        "nodes": [
            {
                "engines": seats.engines,
                "trainers": seats.trainers,
                "verifiers": seats.verifiers,
                "memory": needs.phases,
                "disk": taken,
            }
            for seats, needs, taken in zip(
                found.seats, found.memory.hosts, found.disks, strict=True
            )
        ],
        "engine_gpu": found.memory.engine_gpu,
        "trainer_gpu": found.memory.trainer_gpu,
        "kv_sequences": found.memory.kv_sequences,
        "rates": asdict(found.rates),
        "stages": [{**asdict(stage), "hours": stage.hours} for stage in found.stages],
        "hours_unknown": found.hours_unknown,
        "misfits": found.misfits,
    }
