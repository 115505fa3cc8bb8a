"""The CPU sampler draws from the softmax: frequencies, masks, rare tokens, any vocabulary size."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from haloforge.rollout.cpu_sampler import draw

CHI2_999 = {9: 27.9, 999: 1143.9}  # 99.9% quantiles of chi-squared, by degrees of freedom


@pytest.mark.parametrize("vocabulary", [10, 1000])
def test_frequencies_are_those_of_the_softmax(vocabulary: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(vocabulary)
    draws = 100_000
    drawn = torch.cat([draw(logits.repeat(5000, 1)) for _ in range(draws // 5000)])
    counts = torch.bincount(drawn, minlength=vocabulary).double()
    expected = logits.double().softmax(-1) * draws
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    assert statistic < CHI2_999[vocabulary - 1]


def test_a_masked_token_is_never_drawn_and_a_sure_one_always() -> None:
    torch.manual_seed(0)
    logits = torch.full((3000, 700), float("-inf"))
    allowed = torch.tensor([0, 255, 256, 511, 699])
    logits[:, allowed] = 0.0
    assert set(draw(logits.clone()).tolist()) == set(allowed.tolist())
    only = torch.full((700, 700), float("-inf"))
    only.fill_diagonal_(3.0)
    assert draw(only).tolist() == list(range(700))


def test_a_rare_token_keeps_its_share() -> None:
    torch.manual_seed(0)
    share = 1e-3
    logits = torch.full((500, 50_000), -40.0)
    logits[:, 7] = 0.0
    logits[:, 49_999] = torch.tensor(share).log()
    drawn = torch.cat([draw(logits.clone()) for _ in range(20)])
    assert (drawn == 49_999).sum().item() == pytest.approx(10, abs=9)
    assert set(drawn.tolist()) <= {7, 49_999}


def test_rows_are_independent_and_keep_their_order() -> None:
    torch.manual_seed(0)
    logits = torch.stack([torch.zeros(600), torch.linspace(0, 50, 600)])
    drawn = torch.stack([draw(logits.clone()) for _ in range(400)])
    assert drawn[:, 0].unique().numel() > 200
    assert drawn[:, 1].min().item() > 500


def sampled(
    monkeypatch: pytest.MonkeyPatch, top_k: int | None, top_p: float | None
) -> tuple[set[int], bool]:
    """The tokens that vLLM's CPU sampler draws with ours in it, of ten whose shares halve, and
    whether it ordered the vocabulary for that."""
    from vllm.v1.sample.ops import topk_topp_sampler

    rows, vocabulary = 2000, 10
    ordered: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        own = getattr(torch.Tensor, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            ordered.append(name)
            return own(*args, **kwargs)

        return call

    for name in ("sort", "topk"):
        monkeypatch.setattr(torch.Tensor, name, noting(name))
    monkeypatch.setattr(topk_topp_sampler, "compiled_random_sample", draw)
    logits = torch.full((rows, vocabulary), 0.5).log() * torch.arange(vocabulary)
    k = None if top_k is None else torch.full((rows,), top_k, dtype=torch.int32)
    p = None if top_p is None else torch.full((rows,), top_p)
    torch.manual_seed(0)
    drawn, _ = topk_topp_sampler.TopKTopPSampler().forward_cpu(logits, {}, k, p)
    return set(drawn.tolist()), bool(ordered)


def test_all_is_drawn_without_ordering_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, ordered = sampled(monkeypatch, None, None)
    assert len(drawn) > 7
    assert not ordered


@pytest.mark.parametrize(
    ("top_k", "top_p", "support"),
    [(3, None, {0, 1, 2}), (None, 0.8, {0, 1, 2}), (2, 0.99, {0, 1}), (10, 0.6, {0, 1})],
)
def test_only_the_likeliest_are_drawn(
    monkeypatch: pytest.MonkeyPatch, top_k: int | None, top_p: float | None, support: set[int]
) -> None:
    drawn, ordered = sampled(monkeypatch, top_k, top_p)
    assert drawn == support
    assert ordered
