"""Tables of the page that have no plot: what was run, before and after, times, failures."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from haloforge.benchmark.passk import Estimate
from haloforge.config import Settings, by_dotted_name
from haloforge.errors import InputError
from haloforge.report.hostile import visible
from haloforge.report.page.files import mapping
from haloforge.report.page.measures import measures_of
from haloforge.report.page.run import Run
from haloforge.report.page.svg import Table
from haloforge.report.page.warnings import reasons_of
from haloforge.report.page.words import NONE, duration, interval, percent
from haloforge.report.summary import paired_differences, signed

KINDS = {
    "pipeline": "pipeline: base, SFT, RAFT",
    "raft": "RAFT",
    "sft": "SFT",
    "benchmark": "benchmark",
    "nothing": "no run",
}
_ROOMS = {"sft": "SFT", "raft": "RAFT", "benchmark": "the benchmark"}
_SHARES = {
    "no_code": "no code in the answer",
    "cut_off": "cut off at the token limit",
    "timed_out": "timed out",
    "trivial": "trivial: cannot print, or does not read its input",
}


def what_was_run(run: Run) -> list[tuple[str, str]]:
    """Names and what they are, in the order of the page."""
    told = [
        ("what", KINDS[run.kind]),
        ("model", _model(run)),
        *_data(run),
        ("sampling", _sampling(run)),
        ("judged in sandbox tier", _counted(run, "tiers")),
        ("toolchains", _counted(run, "toolchains")),
        ("hardware", _hardware(run.hardware)),
        ("versions", ", ".join(f"{name} {text}" for name, text in run.versions.items())),
    ]
    return [(name, visible(text) or "not on record") for name, text in told if text is not None]


def _model(run: Run) -> str:
    base, digest = run.about.get("base_public_id"), run.about.get("base_digest")
    name = str(base or run.settings.get("model") or "")
    return f"{name} (digest {digest})" if digest else name


def _data(run: Run) -> Iterator[tuple[str, str]]:
    rooms = {"pipeline": ("sft", "raft", "benchmark")}.get(run.kind, (run.kind,))
    for room in filter(_ROOMS.get, rooms):
        chosen = mapping(run.settings.get(room))
        source = chosen.get("data") if room == "sft" else chosen.get("prompts")
        if source is None:
            continue
        parts = [str(source)]
        if chosen.get("difficulty"):
            parts.append(f"difficulty {', '.join(map(str, chosen['difficulty']))}")
        if chosen.get("limit"):
            parts.append(f"limit {chosen['limit']}")
        parts += _numbers(run, room)
        yield f"data of {_ROOMS[room]}", ", ".join(parts)
    held_out = mapping(run.settings.get("raft")).get("eval_prompts")
    if "raft" in rooms:
        told = "none: cycles are not scored on problems that are not trained on"
        yield "held-out problems of RAFT", str(held_out) if held_out else told


def _numbers(run: Run, room: str) -> list[str]:
    if room == "benchmark" and run.results:
        first = next(iter(run.results.values()))
        return [f"{first.problems:,} problems", f"{first.samples} samples each"]
    if room == "raft":
        plan = mapping(run.cycles[-1].record.get("plan")) if run.cycles else {}
        each = mapping(run.settings.get("raft")).get("samples_per_prompt")
        problems = [f"{plan['problems']:,} problems"] if "problems" in plan else []
        return [*problems, *([f"{each} samples each"] if each else [])]
    rows = [training.facts.get("rows") for training in run.trainings if training.name == "SFT"]
    return [f"{row:,} conversations" for row in rows if isinstance(row, int)]


def _sampling(run: Run) -> str | None:
    chosen = mapping(run.settings.get("rollout"))
    if run.kind == "sft" or not chosen:
        return None
    own = mapping(run.settings.get("raft")).get("temperature") if run.cycles else None
    temperature = chosen.get("temperature") if own is None else own
    told = {
        "temperature": temperature,
        "tokens at most": chosen.get("max_tokens"),
        "seed": run.settings.get("seed"),
    }
    return ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)


def _counted(run: Run, name: str) -> str | None:
    if run.kind == "sft":
        return None
    total: Counter[str] = Counter()
    for counts in run.counted.values():
        total.update(getattr(counts, name))
    return ", ".join(f"{each} ({number:,} samples)" for each, number in total.most_common(6))


def _hardware(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    nodes, gpus = found["ray_nodes"], found["ray_gpus"]
    told = f"{found['cpu']}, {found['cores']} cores, {found['memory_gb']:g} GB; Ray: "
    told += f"{nodes} {'node' if nodes == 1 else 'nodes'}, {found['ray_cpus']:g} CPUs, "
    return told + f"{gpus:g} GPUs {' '.join(found['accelerators'])}".strip()


def settings_tables(run: Run) -> tuple[Table, Table] | None:
    """What was set otherwise than by default, and all settings."""
    if not run.settings:
        return None
    usual = _shown(Settings().model_dump(mode="json"))
    found = _shown(run.settings)
    rows = [[name, value] for name, value in found.items()]
    changed = [[n, v, usual.get(n, NONE)] for n, v in rows if usual.get(n) != v]
    return (
        Table(
            "Settings that are not at their defaults",
            ["setting", "value", "default"],
            changed,
            words=3,
        ),
        Table("All settings", ["setting", "value"], rows, words=2),
    )


def _shown(tree: Mapping[str, Any]) -> dict[str, str]:
    texts = {
        name: "none" if value is None else str(value)
        for name, value in by_dotted_name(tree).items()
    }
    return {visible(name): visible(text)[:300] for name, text in texts.items()}


def before_and_after(run: Run) -> list[Table]:
    """The measures of each model, and below them, where several were measured on common problems,
    the differences of each pair."""
    results = run.results
    if not results:
        return []
    measures = measures_of(results)
    told = Table(
        "Means over problems with 95% intervals, by resampling problems.",
        ["measure", *(name or "model" for name in results)],
        [[m, *(interval(result.measures.get(m)) for result in results.values())] for m in measures],
    )
    try:
        pairs = paired_differences(results)
    except InputError:  # no problem in common
        pairs = {}
    if not pairs:
        return [told]
    differences = Table(
        "Differences, paired by problem, in percentage points; bold and marked * where the "
        "interval leaves out 0.",
        ["measure", *(name.replace("_minus_", " − ") for name in pairs)],  # noqa: RUF001
        [[m, *(_difference(pair.get(m)) for pair in pairs.values())] for m in measures],
        marked=True,
    )
    return [told, differences]


def _difference(found: Estimate | None) -> str:
    if found is None:
        return "not measured"
    return signed(found) + ("*" if found.low > 0 or found.high < 0 else "")


def answers_came_to(run: Run) -> Table | None:
    """Shares of the answers of each benchmark, and what was lost."""
    results = run.results
    if not results:
        return None
    shares = dict.fromkeys(share for result in results.values() for share in result.shares)
    rows = [
        [_SHARES.get(share, share), *(percent(r.shares.get(share)) for r in results.values())]
        for share in shares
    ]
    tiers = [", ".join(sorted(result.sandbox_tiers)) or NONE for result in results.values()]
    rows.append(["sandbox that they ran in", *tiers])
    rows.append(["lost to failures of ours", *(f"{r.infra_errors:,}" for r in results.values())])
    head = ["share of the answers", *(name or "model" for name in results)]
    return Table("What the answers came to", head, rows)


def times(run: Run) -> list[Table]:
    """Wall time by stage of a pipeline, and by step of each cycle."""
    found = []
    if run.seconds:
        rows = [[visible(name), duration(value)] for name, value in run.seconds.items()]
        rows.append(["together", duration(sum(run.seconds.values()))])
        found.append(Table("Wall time by stage, over all sittings", ["stage", "took"], rows))
    steps = dict.fromkeys(step for cycle in run.cycles for step in cycle.seconds)
    if steps:
        rows = [
            [str(cycle.number), *(duration(cycle.seconds.get(step)) for step in steps)]
            for cycle in run.cycles
        ]
        head = ["cycle", *(visible(step).replace("_", " ") for step in steps)]
        found.append(Table("Wall time by step of each cycle", head, rows))
    return found


def failures(run: Run) -> Table | None:
    """Failures of ours by the first line of what was told of them."""
    counted = run.counted
    reasons = reasons_of(counted.values())
    if not reasons:
        return None
    rows = []
    for line, number in reasons.most_common(12):
        where = [name for name, counts in counted.items() if counts.lost[line]]
        rows.append([line, ", ".join(where[:6]), f"{number:,}"])
    return Table(
        "Failures of ours by their diagnostics", ["diagnostics", "in", "samples"], rows, words=2
    )
