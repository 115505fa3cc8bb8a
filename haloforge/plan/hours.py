"""What each stage has to do, and the hours that takes at given or measured rates.

The counts are upper bounds: each sample is as long as `answer_tokens` says and, unless a measured
run tells how many are, good enough to train on. Programs are judged while others are sampled, so
that the slower of both counts. Engine starts, policy swaps and trainers' starts are in no rate that
is given, but in those of a measured run.
"""

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from haloforge.benchmark.problems import problems_to_measure
from haloforge.config import Settings
from haloforge.data.problems import choose_problems
from haloforge.data.sft import read_sft
from haloforge.errors import InputError
from haloforge.placement import Placement
from haloforge.store.layout import STATISTICS

_HOUR = 3600


@dataclass(frozen=True)
class Rates:
    """Tokens/s of one engine and of one trainer, programs/s of one CPU of the verifiers, and the
    tokens of an answer; None is not known. `kept` is the share of a cycle's samples that it trains
    on (None: all that may be), `source` says where the measured ones are from."""

    engine: float | None
    trainer: float | None
    programs: float | None
    answer_tokens: float
    kept: float | None = None
    source: str | None = None


@dataclass(frozen=True)
class Stage:
    """A stage, how often it runs, what it has to do at most each time, and the hours of each part
    (None: no rate is known)."""

    name: str
    times: int
    samples: int
    generated_tokens: float
    trained_tokens: float
    generate: float | None
    verify: float | None
    train: float | None

    @property
    def hours(self) -> float | None:
        """Of one time; a part whose rate is not known is left out, None where all are."""
        sampling = [part for part in (self.generate, self.verify) if part is not None]
        parts = [part for part in (max(sampling, default=None), self.train) if part is not None]
        return sum(parts) if parts else None


def rates_of(settings: Settings, measured: Path | None) -> Rates:
    """The rates in `settings`, and in their place, where they say none, those of the RAFT run in
    the folder `measured`.

    Raises InputError where that holds none.
    """
    given = settings.plan
    found: dict[str, float] = _measured(measured) if measured else {}
    return Rates(
        engine=given.engine_tokens_per_s or found.get("engine"),
        trainer=given.trainer_tokens_per_s or found.get("trainer"),
        programs=given.programs_per_s,
        answer_tokens=given.answer_tokens or found.get("answer") or settings.rollout.max_tokens,
        kept=found.get("kept"),
        source=str(measured) if measured else None,
    )


def _measured(run: Path) -> dict[str, float]:
    """Over all cycles. Sampling and judging overlap in a run, so that the rate of its engines is at
    least what was measured, and that of its verifiers is not known."""
    path = run / STATISTICS
    try:
        records = json.loads(path.read_text())
        config = yaml.safe_load((run / "config.yaml").read_text())
        engines = config["rollout"]["engines"]
        trainers = config["train"]["workers"] or 1
        sampled = [r for r in records if r["generated_tokens"] and r["tokens_per_second"]]
        tokens = sum(r["generated_tokens"] for r in sampled)
        seconds = sum(r["generated_tokens"] / r["tokens_per_second"] for r in sampled)
        samples = sum(r["selection"]["samples"] for r in sampled)
        trained = sum(r["training"]["trained_tokens"] for r in records)
        training = sum(r["training"]["seconds"] for r in records)
        return {
            "engine": tokens / seconds / engines,
            "answer": tokens / samples,
            "kept": sum(r["training"]["rows"] for r in sampled) / samples,
            "trainer": trained / training / trainers,
        }
    except OSError as error:
        raise InputError(f"--rates-from {run}: {error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        raise InputError(f"{path}: no cycle there tells its tokens and seconds") from None


def stages_of(
    settings: Settings, placement: Placement, verifier_cpus: float, rates: Rates
) -> list[Stage]:
    """The stages of `halo-forge pipeline`, each of which is a command of its own too.

    Raises InputError for problems or rows that cannot be read.
    """
    benchmark, raft = settings.benchmark, settings.raft
    measured = len(problems_to_measure(settings).problems) * benchmark.samples
    problems = len(choose_problems(raft, settings.language).problems)
    tuned = settings.sft
    rows = len(
        read_sft(tuned.data, settings.language, settings.system, tuned.difficulty, tuned.limit)
    )
    sft_epochs, raft_epochs = tuned.epochs or settings.train.epochs, raft.epochs
    samples = problems * raft.samples_per_prompt
    kept: float = _kept(settings, problems)
    if rates.kept is not None:
        kept = min(kept, samples * rates.kept)
    parts = _Parts(placement, verifier_cpus, rates)
    return [
        parts.stage("benchmark", 3, samples=measured),
        parts.stage("SFT", 1, trained=rows * sft_epochs),
        parts.stage(
            "RAFT cycle",
            raft.cycles,
            samples=samples,
            trained=kept * (raft_epochs or settings.train.epochs),
        ),
    ]


def cycle_samples(settings: Settings) -> int:
    """Samples of a RAFT cycle."""
    problems = choose_problems(settings.raft, settings.language).problems
    return len(problems) * settings.raft.samples_per_prompt


def _kept(settings: Settings, problems: int) -> int:
    """The most samples that a cycle trains on."""
    raft = settings.raft
    each = ceil(raft.samples_per_prompt * raft.keep_top_percent)
    kept = problems * min(each, raft.max_per_problem or each)
    return min(kept, raft.max_train_samples or kept)


@dataclass(frozen=True)
class _Parts:
    placement: Placement
    verifier_cpus: float
    rates: Rates

    def stage(self, name: str, times: int, samples: int = 0, trained: float = 0) -> Stage:
        rates, place = self.rates, self.placement
        generated, learned = samples * rates.answer_tokens, trained * rates.answer_tokens
        return Stage(
            name,
            times,
            samples,
            generated,
            learned,
            generate=_hours(generated, rates.engine, place.engines),
            verify=_hours(samples, rates.programs, self.verifier_cpus),
            train=_hours(learned, rates.trainer, place.trainers),
        )


def _hours(work: float, rate: float | None, workers: Any) -> float | None:
    return work / (rate * workers) / _HOUR if work and rate else None
