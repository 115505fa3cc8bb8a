"""Selection: which judged samples the next policy learns from."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from haloforge.errors import HaloforgeError, InfraError
from haloforge.raft.earlier import Earlier, EarlierRows
from haloforge.raft.health import Health
from haloforge.raft.settings import RaftSettings
from haloforge.raft.survey import OUTCOMES, Survey, read_batches
from haloforge.raft.training_set import TRAINED, TRAINED_SCHEMA, write_training_set
from haloforge.schema import Problem
from haloforge.store.shards import sample_shards
from haloforge.verify.settings import VerifySettings

Array = np.ndarray[Any, Any]
Columns = dict[str, Array]
_STORED = ["sample_id", "problem_id", "cycle", "index", "policy", "completion"]


@dataclass(frozen=True)
class Selection:
    """How a cycle's samples fared; what is trained on is in the file `path`, best first.

    `dropped` counts by the rule that dropped a sample: with `kept` they are all `samples`.
    `kept_outcomes` are the kept ones by outcome, `sandbox_tiers` all by the sandbox that they were
    judged in, `earlier` what earlier cycles' samples came to. `judged` and `solved` count by the
    problems' places, failures of ours apart.
    """

    path: Path
    cycle: int
    samples: int
    above_threshold: int
    kept: int
    earlier: Earlier
    dropped: dict[str, int]
    outcomes: dict[str, int]
    kept_outcomes: dict[str, int]
    sandbox_tiers: dict[str, int]
    mean_reward: float
    health: Health
    judged: Array
    solved: Array

    @property
    def rows(self) -> int:
        """How many samples are trained on."""
        return self.kept + self.earlier.kept

    def summary(self) -> dict[str, Any]:
        """The counts as plain values, shares as fractions of all samples."""
        return {
            "samples": self.samples,
            "outcomes": self.outcomes,
            "mean_reward": self.mean_reward,
            "share_above_threshold": self.above_threshold / max(1, self.samples),
            "kept": self.kept,
            "share_kept": self.kept / max(1, self.samples),
            "kept_outcomes": self.kept_outcomes,
            "dropped": self.dropped,
            "earlier": asdict(self.earlier),
            "sandbox_tiers": self.sandbox_tiers,
            "health": asdict(self.health),
        }

    def require(self, wanted: int) -> None:
        """Raises HaloforgeError where fewer than `wanted` samples are left to train on, InfraError
        where failures of ours may be why."""
        if self.rows < wanted:
            lost = self.dropped.get("infra_error", 0)
            if lost and self.rows + lost >= wanted:
                raise InfraError(
                    f"raft cycle {self.cycle}: {self.rows} samples are good enough to learn from, "
                    f"raft.min_samples={wanted} are wanted, and {lost} could not be judged for "
                    "failures of ours: the same command judges those again"
                )
            lower = "lower that, or " if self.rows else ""
            raise HaloforgeError(
                f"raft cycle {self.cycle}: {self.rows} samples are good enough to learn from, "
                f"raft.min_samples={wanted} are wanted; {lower}name another --output and lower "
                "raft.reward_threshold, raise raft.samples_per_prompt or run sft first (the "
                "samples here are kept)"
            )


def select(
    run: Path,
    cycle: int,
    problems: Sequence[Problem],
    rules: RaftSettings,
    verify: VerifySettings,
    seed: int,
) -> Selection:
    """Chooses what is trained on of the samples in `run/cycle_N`; writes `trained.parquet` there.

    The rules are applied in this order; README.md says more of each. Left out are failures of ours,
    rewards below `reward_threshold`, answers cut off by the length limit (they would teach to stop
    half way), all but the best of answers that are the same but for comments and white space,
    problems that all or none of their samples solve, what is not among the best
    `keep_top_percent` of a problem's, and what is over `max_per_problem` and `max_train_samples`.
    Ties are broken by a draw from `seed`; the order of the shards means nothing. The best of n
    samples above a threshold is the ranking of RAFT (Dong et al. 2023).

    Samples are streamed twice; between that some 50 bytes of each are held, 100 while they are
    sorted. Raises InfraError where
    what is stored cannot be read.
    """
    folder = run / f"cycle_{cycle}"
    shards = sample_shards(folder)
    survey = Survey(problems, verify, rules.reward_threshold, seed)
    survey.read(shards)
    found = survey.candidates.arrays()
    kept = _choose(found, survey, rules)
    own = {name: column[kept] for name, column in found.items()}
    room = rules.max_train_samples
    earlier = EarlierRows(
        run,
        cycle if rules.train_on == "all" else 1,
        own["form"],
        room if room is None else room - len(kept),
    )
    names = [str(shard.relative_to(run)) for shard in shards]
    parts = chain(_parts(shards, names, own, rules.prompts), earlier.parts())
    write_training_set(folder / TRAINED, parts, len(kept) + earlier.counts.kept)
    outcomes, numbers = np.unique(np.array(OUTCOMES)[own["outcome"]], return_counts=True)
    return Selection(
        path=folder / TRAINED,
        cycle=cycle,
        samples=survey.outcomes.total(),
        above_threshold=survey.above_threshold,
        kept=len(kept),
        earlier=earlier.counts,
        dropped={rule: count for rule, count in sorted(survey.dropped.items()) if count},
        outcomes=dict(sorted(survey.outcomes.items())),
        kept_outcomes=dict(zip(outcomes.tolist(), numbers.tolist(), strict=True)),
        sandbox_tiers=dict(sorted(survey.tiers.items())),
        mean_reward=survey.mean_reward,
        health=survey.health,
        judged=survey.judged,
        solved=survey.solved,
    )


def _choose(found: Columns, survey: Survey, rules: RaftSettings) -> Array:
    """The rows of `found` to train on, best first; what each rule drops is counted in `survey`."""
    problem, reward, draw = found["problem"], found["reward"], found["draw"]
    kept = np.lexsort((found["index"], -reward, found["form"]))

    def drop(rule: str, mask: Array) -> None:
        nonlocal kept
        survey.dropped[rule] += int(mask.sum())
        kept = kept[~mask]

    drop("duplicate", _place_in_group(found["form"][kept]) > 0)
    if rules.drop_solved_by_all:
        drop("solved_by_all", (survey.solved == survey.judged)[problem[kept]])
    if rules.drop_solved_by_none:
        drop("solved_by_none", (survey.solved == 0)[problem[kept]])
    kept = kept[np.lexsort((draw[kept], -reward[kept], problem[kept]))]
    sizes = np.bincount(problem[kept], minlength=len(survey.judged))
    top = np.ceil(rules.keep_top_percent * sizes - 1e-9)
    drop("not_in_top", _place_in_group(problem[kept]) >= top[problem[kept]])
    if rules.max_per_problem is not None:
        drop("over_cap", _place_in_group(problem[kept]) >= rules.max_per_problem)
    kept = kept[np.lexsort((draw[kept], -reward[kept]))]
    if rules.max_train_samples is not None:
        drop("over_max_train_samples", np.arange(len(kept)) >= rules.max_train_samples)
    return kept


def _place_in_group(values: Array) -> Array:
    """How many equal values stand before each; equal ones stand together."""
    begins = np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])
    return np.arange(len(values)) - np.repeat(begins, np.diff(np.r_[begins, len(values)]))


def _parts(
    shards: Sequence[Path], names: Sequence[str], kept: Columns, source: str
) -> Iterator[pa.Table]:
    """The kept rows, in the order of the shards, as tables of TRAINED_SCHEMA."""
    by_place = np.lexsort((kept["row"], kept["shard"]))
    ends = np.cumsum(np.bincount(kept["shard"], minlength=len(shards)))
    for number, (path, begin, end) in enumerate(zip(shards, np.r_[0, ends], ends, strict=False)):
        if begin == end:
            continue
        ranks = by_place[begin:end]
        rows = kept["row"][ranks]
        read = 0
        for batch in read_batches(path, _STORED):
            first, last = np.searchsorted(rows, [read, read + batch.num_rows])
            if first < last:
                taken = batch.take(pa.array(rows[first:last] - read))
                yield _lineage(taken, kept, ranks[first:last], names[number], source)
            read += batch.num_rows


def _lineage(
    stored: pa.RecordBatch, kept: Columns, ranks: Array, shard: str, source: str
) -> pa.Table:
    """Rows of a shard of samples with what is known of those with these ranks."""
    columns = {name: stored[name] for name in _STORED}
    columns |= {name: kept[name][ranks] for name in ("reward", "form")}
    columns["outcome"] = [OUTCOMES[code] for code in kept["outcome"][ranks]]
    columns["shard"], columns["problem_source"] = [shard] * len(ranks), [source] * len(ranks)
    columns["rank"] = ranks
    return pa.table(columns, schema=TRAINED_SCHEMA)
