"""What committed samples came to, from the columns of their shards: no text is read, but the
diagnostics of failures of ours.

Memory does not grow with the samples: batches are counted and let go. What makes pyarrow import
pandas (`to_numpy`, scalars, arrays of Python values) is kept out of the usual way: that takes
longer than all that is read here.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.errors import InfraError
from haloforge.report.hostile import decoded, first_line
from haloforge.report.page.files import Files
from haloforge.schema import Outcome
from haloforge.store.shards import sample_shards

_BATCH_ROWS = 1 << 16
_LOST_READ = 20_000
_LOST_KINDS = 200
_MOST_TOKENS = 1 << 20  # longer answers are counted as this long


@dataclass
class Counts:
    """Of the committed samples of one folder.

    `rewards` and `tokens` leave out failures of ours, which have neither: `rewards` counts by
    reward, `tokens[n]` the answers of n tokens. `lost` counts failures of ours by the first line of
    their diagnostics, of the first `lost_read`. `places` holds by outcome where the first such
    sample is: its shard's place and its row there.
    """

    samples: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rewards: Counter[float] = field(default_factory=Counter)
    tokens: "np.ndarray[Any, Any]" = field(default_factory=lambda: np.zeros(1, np.int64))
    cut_off: int = 0
    tested: bool = False
    tiers: Counter[str] = field(default_factory=Counter)
    toolchains: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    lost_read: int = 0
    shards: list[Path] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """Samples that no failure of ours kept from being judged."""
        return self.samples - self.outcomes[Outcome.INFRA_ERROR]

    @property
    def mean_reward(self) -> float | None:
        """Over the judged."""
        total = self.rewards.total()
        return sum(r * n for r, n in self.rewards.items()) / total if total else None

    @property
    def mean_tokens(self) -> float | None:
        """Over the judged."""
        total = int(self.tokens.sum())
        return float(self.tokens @ np.arange(len(self.tokens))) / total if total else None

    def token_quantiles(self, shares: list[float]) -> list[int]:
        """The lengths that these shares of the answers do not exceed; empty without answers."""
        total = int(self.tokens.sum())
        if not total:
            return []
        cumulative = np.cumsum(self.tokens)
        return [int(np.searchsorted(cumulative, share * total)) for share in shares]


def count(files: Files, folder: Path) -> Counts:
    """Of what is committed in `folder` so far; shards that cannot be read are told."""
    found = Counts()
    try:
        found.shards = sample_shards(folder)
    except (InfraError, KeyError) as error:
        files.note(folder / "commits", str(error).removeprefix(f"{folder}/"))
    for place, samples in enumerate(found.shards):
        verdicts = folder / "verdicts" / samples.name
        try:
            _count_shard(found, place, samples, verdicts)
        except (OSError, pa.ArrowException) as error:
            files.note(samples, f"a committed shard cannot be read ({str(error)[:100]})")
    return found


_VERDICT = ["outcome", "reward", "tests_total", "sandbox_tier", "toolchain"]
_SAMPLE = ["num_tokens", "finish_reason"]


def _count_shard(found: Counts, place: int, samples: Path, verdicts: Path) -> None:
    with pq.ParquetFile(verdicts) as judged, pq.ParquetFile(samples) as drawn:
        row = 0
        batches = judged.iter_batches(_BATCH_ROWS, columns=_known(judged, _VERDICT))
        others = drawn.iter_batches(_BATCH_ROWS, columns=_known(drawn, _SAMPLE))
        for verdict, sample in zip(batches, others, strict=False):
            _count_batch(found, place, row, verdict, sample)
            row += verdict.num_rows
    if found.outcomes[Outcome.INFRA_ERROR] > found.lost_read < _LOST_READ:
        _read_lost(found, verdicts)


def _count_batch(
    found: Counts, place: int, row: int, verdict: pa.RecordBatch, sample: pa.RecordBatch
) -> None:
    found.samples += verdict.num_rows
    names, codes = _coded(verdict["outcome"])
    for code, (name, number) in enumerate(zip(names, _sizes(names, codes), strict=True)):
        found.outcomes[name] += number
        if name not in found.places:
            found.places[name] = place, row + int(np.argmax(codes == code))
    judged = np.ones(len(codes), bool)
    if Outcome.INFRA_ERROR in names:
        judged = codes != names.index(Outcome.INFRA_ERROR)
    rewards = _numbers(verdict["reward"])[judged]
    # 32-bit: 0.7 comes back as 0.69999999.
    values, numbers = np.unique(np.round(rewards[~np.isnan(rewards)], 3), return_counts=True)
    found.rewards.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    found.tested = found.tested or bool((_numbers(verdict["tests_total"]) > 0).any())
    for name, counter in (("sandbox_tier", found.tiers), ("toolchain", found.toolchains)):
        texts, coded = _coded(verdict[name])
        counter.update({t: n for t, n in zip(texts, _sizes(texts, coded), strict=True) if t and n})
    if sample.num_rows == verdict.num_rows:
        ends, coded = _coded(sample["finish_reason"])
        found.cut_off += dict(zip(ends, _sizes(ends, coded), strict=True)).get("length", 0)
        lengths = _numbers(sample["num_tokens"])[judged]
        lengths = lengths[~np.isnan(lengths)].astype(np.int64)
        histogram = np.bincount(np.clip(lengths, 0, _MOST_TOKENS))
        size = max(len(histogram), len(found.tokens))
        found.tokens = np.pad(found.tokens, (0, size - len(found.tokens)))
        found.tokens[: len(histogram)] += histogram


def _coded(column: pa.Array) -> "tuple[list[str], np.ndarray[Any, Any]]":
    """The distinct texts of a column, and of each row which it is."""
    coded = column.cast(pa.binary()).dictionary_encode(null_encoding="encode")
    return [decoded(text) for text in coded.dictionary.to_pylist()], np.from_dlpack(coded.indices)


def _sizes(names: list[str], codes: "np.ndarray[Any, Any]") -> list[int]:
    found: list[int] = np.bincount(codes, minlength=len(names)).tolist()
    return found


def _numbers(column: pa.Array) -> "np.ndarray[Any, Any]":
    """As 64-bit numbers; what is missing is NaN."""
    numbers = column.cast(pa.float64())
    if numbers.null_count:
        numbers = numbers.fill_null(np.nan)
    return np.from_dlpack(numbers)


def _read_lost(found: Counts, verdicts: Path) -> None:
    with pq.ParquetFile(verdicts) as judged:
        for batch in judged.iter_batches(4096, columns=["outcome", "diagnostics"]):
            names, codes = _coded(batch["outcome"])
            if Outcome.INFRA_ERROR not in names:
                continue
            texts, coded = _coded(batch["diagnostics"])
            coded = coded[codes == names.index(Outcome.INFRA_ERROR)]
            found.lost_read += len(coded)
            for text, number in zip(texts, _sizes(texts, coded), strict=True):
                line = first_line(text) or "no reason was given"
                if line not in found.lost and len(found.lost) >= _LOST_KINDS:
                    line = "other reasons"
                found.lost.update({line: number} if number else {})


def _known(file: pq.ParquetFile, names: list[str]) -> list[str]:
    missing = set(names) - set(file.schema_arrow.names)
    if missing:
        raise pa.ArrowInvalid(f"no column {', '.join(sorted(missing))}")
    return names
