"""The plan of rows per step, and the learning rate, over many shapes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from haloforge.train.plan import AUTO_MICRO_BATCH_TOKENS, StepPlan, learning_rate
from haloforge.train.settings import TrainSettings

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


@given(plans, st.integers(1, 5), st.none() | st.integers(1, 4))
def test_workers_share_a_global_batch_that_does_not_depend_on_them(
    plan: StepPlan, num_workers: int, micro_batch_size: int | None
) -> None:
    for step in range(plan.num_steps):
        shares = plan.micro_batches(step, num_workers, micro_batch_size)
        assert len(shares) == num_workers
        assert len({len(share) for share in shares}) == 1
        spread = [row for share in shares for batch in share for row in batch]
        assert Counter(spread) == Counter(plan.rows(step))
        for batch in (batch for share in shares for batch in share if batch):
            if micro_batch_size is not None:
                assert len(batch) <= micro_batch_size
            elif len(batch) > 1:
                longest = max(plan.lengths[row] for row in batch)
                assert longest * len(batch) <= AUTO_MICRO_BATCH_TOKENS


@given(plans, st.integers(2, 5))
def test_no_worker_carries_more_than_the_others_by_over_one_row(
    plan: StepPlan, num_workers: int
) -> None:
    for step in range(plan.num_steps):
        tokens = [
            sum(plan.lengths[row] for batch in share for row in batch)
            for share in plan.micro_batches(step, num_workers)
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
    rates = [learning_rate(step, num_steps, settings) for step in range(num_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1.0)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


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
