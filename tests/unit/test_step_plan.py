"""The plan of rows per step, and the learning rate, over many shapes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from haloforge.errors import InputError
from haloforge.train.plan import StepPlan, learning_rate, warmup_steps
from haloforge.train.settings import TrainSettings

DEFAULT = TrainSettings()
lengths = st.lists(st.integers(2, 3000), min_size=1, max_size=60)
plans = st.builds(
    StepPlan,
    lengths=lengths,
    batch_size=st.integers(1, 20),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 5),
)


@given(plans)
def test_every_row_once_per_epoch_and_only_an_epochs_last_batch_is_short(plan: StepPlan) -> None:
    num_rows = len(plan.lengths)
    rows: list[int] = []
    for step in range(plan.num_steps):
        batch = plan.rows(step)
        rows += batch
        assert len(batch) == plan.batch_size or len(rows) % num_rows == 0
    assert len(rows) == plan.epochs * num_rows
    for first in range(0, len(rows), num_rows):
        assert sorted(rows[first : first + num_rows]) == list(range(num_rows))


limits = st.builds(
    TrainSettings,
    micro_batch_size=st.none() | st.integers(1, 4),
    micro_batch_tokens=st.integers(1, 5000),
)


@given(plans, st.integers(1, 5), limits, st.booleans())
def test_workers_share_a_global_batch_that_does_not_depend_on_them(
    plan: StepPlan, num_workers: int, settings: TrainSettings, packed: bool
) -> None:
    for step in range(plan.num_steps):
        shares = plan.micro_batches(step, num_workers, settings, packed)
        assert len(shares) == num_workers
        assert len({len(share) for share in shares}) == 1
        batches = [batch for share in shares for batch in share if batch]
        spread = [row for batch in batches for sequence in batch for row in sequence]
        assert Counter(spread) == Counter(plan.rows(step))
        for batch in batches:
            tokens = [sum(plan.lengths[row] for row in sequence) for sequence in batch]
            assert all(batch), "a sequence of nothing"
            longest = max(plan.lengths[row] for row in plan.rows(step))
            assert max(tokens) <= (3 * longest if packed else longest)
            if settings.micro_batch_size is not None:
                assert len(batch) <= settings.micro_batch_size
            elif len(batch) > 1:
                assert max(tokens) * len(batch) <= (settings.micro_batch_tokens or 0)


def test_short_rows_share_a_sequence() -> None:
    plan = StepPlan([100, 60, 50, 40, 30, 20, 10], batch_size=7, epochs=1, seed=0)
    assert plan.micro_batches(0, 1, DEFAULT) == [[[[0, 3, 5], [1, 2, 4, 6]]]]
    assert plan.micro_batches(0, 1, TrainSettings(micro_batch_size=1)) == [
        [[[0, 3, 5]], [[1, 2, 4, 6]]]
    ]
    alone = [[row] for row in range(7)]
    assert plan.micro_batches(0, 1, DEFAULT, packed=False) == [[alone]]
    four = TrainSettings(micro_batch_size=4)
    assert plan.micro_batches(0, 1, four, packed=False) == [[alone[:4], alone[4:]]]


@pytest.mark.parametrize("batch_size", [8, 32])
def test_little_is_padding(batch_size: int) -> None:
    lengths = np.random.default_rng(0).integers(20, 400, 512).tolist()
    plan = StepPlan(lengths, batch_size, epochs=1, seed=0)
    padded = 0
    for step in range(plan.num_steps):
        for batch in plan.micro_batches(step, 1, DEFAULT)[0]:
            tokens = [sum(lengths[row] for row in sequence) for sequence in batch]
            padded += max(tokens) * len(batch)
    assert sum(lengths) > 0.95 * padded


@given(plans, st.integers(2, 5))
def test_no_worker_carries_more_than_the_others_by_over_one_row(
    plan: StepPlan, num_workers: int
) -> None:
    for step in range(plan.num_steps):
        tokens = [
            sum(plan.lengths[row] for batch in share for sequence in batch for row in sequence)
            for share in plan.micro_batches(step, num_workers, DEFAULT)
        ]
        assert max(tokens) - min(tokens) <= max(plan.lengths[row] for row in plan.rows(step))


def test_seed_and_epoch_change_the_order_and_nothing_else_does() -> None:
    def first_epochs(seed: int, epochs: float = 2) -> list[list[int]]:
        plan = StepPlan([5] * 50, batch_size=50, epochs=epochs, seed=seed)
        return [plan.rows(step) for step in range(plan.num_steps)]

    assert first_epochs(0) == first_epochs(0)
    assert first_epochs(0, epochs=5)[:2] == first_epochs(0)
    assert first_epochs(0)[0] != first_epochs(0)[1]
    assert first_epochs(0)[0] != first_epochs(1)[0]


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 2), (1.5, 5), (2.0, 6), (0.001, 1)])
def test_fraction_of_an_epoch(epochs: float, steps: int) -> None:
    plan = StepPlan([5] * 12, batch_size=4, epochs=epochs, seed=0)
    assert plan.num_steps == steps
    with pytest.raises(IndexError):
        plan.rows(steps)


@given(
    st.sampled_from(["cosine", "linear", "constant"]),
    st.floats(0, 1),
    st.integers(1, 200),
)
def test_rate_rises_to_the_full_rate_and_never_rests_at_zero(
    schedule: str, warmup_ratio: float, num_steps: int
) -> None:
    settings = TrainSettings.model_validate(
        {"schedule": schedule, "warmup_ratio": warmup_ratio, "learning_rate": 1.0}
    )
    try:
        warmup = warmup_steps(num_steps, settings)
    except InputError:
        assert warmup_ratio * num_steps > num_steps - 1
        return
    assert warmup < num_steps
    rates = [learning_rate(step, num_steps, settings) for step in range(num_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1.0)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_a_warm_up_as_long_as_training_is_refused_with_the_numbers() -> None:
    with pytest.raises(InputError, match=r"warmup_ratio=0\.9 warms up for 5 of 5 steps"):
        warmup_steps(5, TrainSettings(warmup_ratio=0.9))
    with pytest.raises(InputError, match="1 of 1 steps"):
        warmup_steps(1, TrainSettings(warmup_ratio=1))
    assert warmup_steps(1, TrainSettings(warmup_ratio=0.03)) == 0
    assert warmup_steps(10, TrainSettings(warmup_ratio=0.9)) == 9


def test_rate_by_hand() -> None:
    settings = TrainSettings(learning_rate=1.0, warmup_ratio=0.2, schedule="linear")
    rates = [learning_rate(step, 10, settings) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"epochs": float("inf")}, {"zero_stage": 4}, {"lr": 1}, {"lora": {"r": 8}}],
)
def test_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings.model_validate(wrong)


def test_a_cpu_computes_fewer_tokens_at_once_and_a_setting_decides() -> None:
    assert DEFAULT.on(gpu=False).micro_batch_tokens == 1024
    assert DEFAULT.on(gpu=True).micro_batch_tokens == 4096
    assert TrainSettings(micro_batch_tokens=300).on(gpu=False).micro_batch_tokens == 300
    plan = StepPlan([500] * 8, batch_size=8, epochs=1, seed=0)
    sizes = [len(batch) for batch in plan.micro_batches(0, 1, DEFAULT.on(gpu=False))[0]]
    assert sizes == [2] * 4
