"""What stands on top of the page: what makes the figures below it mean less, or the run end badly.

A line each, the gravest first.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from haloforge.raft.health import FEW_STEPS, warnings
from haloforge.report.hostile import visible
from haloforge.report.page.activity import restarts
from haloforge.report.page.columns import Counts
from haloforge.report.page.run import Run
from haloforge.report.page.words import listed, percent, plural
from haloforge.schema import Outcome

_RAN = (
    *(Outcome.RUNTIME_ERROR, Outcome.TIMEOUT, Outcome.MEMORY_LIMIT, Outcome.OUTPUT_LIMIT),
    *(Outcome.WRONG_ANSWER, Outcome.PASSED),
)
_STRONG_TIER = "bubblewrap"
_TIERS = {
    "landlock": "the second tier: no namespaces, so programs see the machine's processes",
    "unsafe": "resource limits alone: programs can read and write what you can",
}
_MISSING = re.compile(r"apt-get install|^cannot start |does not run \(|needs \S+: ")
_MOST = 30


class Caution(NamedTuple):
    """`kind` is a word for the style and for tests; `text` is for the reader."""

    kind: str
    text: str


def find_warnings(run: Run) -> list[Caution]:
    """All that there is to warn of."""
    found = [
        *_status(run),
        *_collapse(run),
        *_lost(run),
        *_incomplete(run),
        *_compile_only(run),
        *_tiers(run),
        *_restarts(run),
        *_few_steps(run),
        *(Caution("unreadable", visible(line)) for line in run.unreadable),
    ]
    return found[:_MOST]


def _status(run: Run) -> Iterator[Caution]:
    status = run.status
    if status.state == "running":
        yield Caution("running", f"running: {status.where}. What follows is what is there so far.")
    elif status.state == "stopped":
        how = f"it failed ({status.message})" if status.message else "it was stopped"
        yield Caution(
            "stopped",
            f"not finished: {how} at {status.where}, and no process is at work here. The same "
            "command goes on from there.",
        )
    elif status.state == "empty":
        yield Caution("empty", "there is nothing of a run here yet")


def _collapse(run: Run) -> Iterator[Caution]:
    """Of the last cycle whose signs were measured, against the first; what earlier cycles warned of
    is in their records."""
    measured = [cycle for cycle in run.cycles if cycle.health]
    for line in warnings([cycle.health for cycle in measured if cycle.health]):
        yield Caution("collapse", f"sign of a collapse in cycle {measured[-1].number}: {line}")


def _lost(run: Run) -> Iterator[Caution]:
    counted = run.counted
    lost = sum(counts.outcomes[Outcome.INFRA_ERROR] for counts in counted.values())
    if not lost:
        return
    reasons = reasons_of(counted.values())
    missing = Counter({line: n for line, n in reasons.items() if _MISSING.search(line)})
    for line, number in missing.most_common(3):
        yield Caution(
            "missing",
            f"a compiler or another tool is missing where samples are judged: {line} "
            f"({plural(number, 'sample')} lost)",
        )
    share = percent(lost / sum(counts.samples for counts in counted.values()))
    where = listed([name for name, c in counted.items() if c.outcomes[Outcome.INFRA_ERROR]][:6])
    text = f"{plural(lost, 'sample')} lost to failures of ours ({share}), in {where}"
    if reasons:
        line, number = reasons.most_common(1)[0]
        text += f"; the most frequent ({number:,}): {line}"
    yield Caution("lost", f"{text}. They are left out; the same command judges them again.")


def reasons_of(counts: Iterable[Counts]) -> Counter[str]:
    """Failures of ours by the first line of their diagnostics."""
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each.lost)
    return found


def _incomplete(run: Run) -> Iterator[Caution]:
    scored = {"the start": run.start}
    scored |= {f"cycle {cycle.number}": cycle.held_out for cycle in run.cycles}
    named = {f"score of {name}": result for name, result in scored.items()}
    named |= {f"benchmark {name}".strip(): result for name, result in run.results.items()}
    for name, result in named.items():
        if result and not result.complete:
            yield Caution(
                "incomplete",
                f"{name}: INCOMPLETE, {plural(result.infra_errors, 'sample')} lost to failures of "
                "ours; its measures leave them out",
            )


def _compile_only(run: Run) -> Iterator[Caution]:
    """Where nothing that was judged has tests: by results where they are, else by verdicts."""
    results = [*run.results.values(), *(cycle.held_out for cycle in run.cycles), run.start]
    alone = [
        f"benchmark {name}".strip()
        for name, result in run.results.items()
        if not any(counts.tested for counts in result.per_problem.values())
    ]
    for name, counts in run.counted.items():
        ran = any(counts.outcomes[outcome] for outcome in _RAN)
        if name.startswith("cycle") and counts.judged and not ran and not counts.tested:
            alone.append(name)
    if alone:
        some = any(r and any(c.tested for c in r.per_problem.values()) for r in results)
        also = "" if some else "; no pass@k can be given"
        yield Caution(
            "compile-only",
            f"only compiling is judged in {listed(alone[:8])}: no problem there has tests that can "
            f"be run, so a program that does nothing scores as well as a right one{also}",
        )


def _tiers(run: Run) -> Iterator[Caution]:
    tiers: Counter[str] = Counter()
    for counts in run.counted.values():
        tiers.update(counts.tiers)
    for tier, number in sorted(tiers.items()):
        if tier != _STRONG_TIER:
            told = _TIERS.get(tier, "not the strongest tier")
            yield Caution(
                "tier",
                f"{plural(number, 'sample')} judged in sandbox tier {visible(tier)[:40]}: {told}",
            )


def _restarts(run: Run) -> Iterator[Caution]:
    seen = restarts(run.activity)
    noted = {
        "engine": sum(cycle.engine_restarts for cycle in run.cycles)
        + sum(each.engine_restarts for each in run.benchmarks),
        "trainer": sum(_number(training.facts.get("restarts")) for training in run.trainings),
    }
    for kind in dict.fromkeys(("engine", "verifier", "trainer", *seen)):
        times = max(seen.get(kind, 0), noted.get(kind, 0))
        if times:
            yield Caution(
                "restart",
                f"{visible(kind)}s died and were started anew {plural(times, 'time')}",
            )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _few_steps(run: Run) -> Iterator[Caution]:
    few = {
        training.name: steps
        for training in run.trainings
        if training.done
        and 0 < (steps := _number(training.facts.get("steps")) or len(training.steps)) < FEW_STEPS
    }
    if few:
        told = listed([f"{steps} in {name}" for name, steps in list(few.items())[:8]])
        yield Caution(
            "few-steps",
            f"few optimizer steps, too few to learn much from: {told}. More samples a problem, "
            "more epochs or a smaller train.batch_size make more.",
        )
