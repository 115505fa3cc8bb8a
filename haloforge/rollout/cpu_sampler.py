"""Draws tokens on a CPU nine times as fast as vLLM does there, from the same distribution.

vLLM draws by an exponential race: one random number for each entry of the vocabulary. On a GPU that
is free; on two cores it took an eighth of each step (64 sequences, 49,152 entries: 13.5 ms against
1.5 ms here). Inverse transform sampling (Devroye 1986, chapter III.2) needs one number a sequence.
"""

import os

import torch
from torch.nn.functional import pad

# Set by an engine that computes on a CPU, so that other users of vLLM keep its own sampler.
CPU_ENGINE_VARIABLE = "HALOFORGE_CPU_ENGINE"
_BLOCK = 256


def use_cpu_sampler() -> None:
    """Puts `draw` in the place of vLLM's own function in this process; a plugin of vLLM."""
    if os.environ.get(CPU_ENGINE_VARIABLE) is None:
        return
    from vllm.v1.sample.ops import topk_topp_sampler

    if not hasattr(topk_topp_sampler, "compiled_random_sample"):
        raise ImportError("this vLLM draws tokens in another place: pin the version that is tested")
    topk_topp_sampler.compiled_random_sample = draw


def draw(logits: torch.Tensor) -> torch.Tensor:
    """One index a row, [rows], from the softmax of `logits`, [rows, vocabulary] in fp32.

    First a block of the vocabulary is drawn by its share, then an entry in it. Sums over blocks are
    in double precision, so that rare tokens keep their share; a masked token (-inf) is never drawn.
    `logits` are overwritten, as vLLM allows: fresh memory for them would cost as much as the draw.
    """
    rows, vocabulary = logits.shape
    weights = logits.sub_(logits.amax(dim=-1, keepdim=True)).exp_()
    if vocabulary % _BLOCK:
        weights = pad(weights, (0, -vocabulary % _BLOCK))
    blocks = weights.view(rows, -1, _BLOCK)  # [rows, blocks, entries]
    upto = blocks.sum(dim=-1).double().cumsum(dim=-1)  # [rows, blocks]
    target = torch.rand(rows, 1, dtype=torch.float64) * upto[:, -1:]
    block = _first_above(upto, target)  # [rows, 1]
    below = pad(upto, (1, 0)).gather(1, block)
    entries = blocks.gather(1, block.unsqueeze(-1).expand(-1, -1, _BLOCK)).squeeze(1)
    entry = _first_above(entries.double().cumsum(dim=-1), target - below)
    return (block * _BLOCK + entry).view(-1)


def _first_above(upto: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The first index in each row whose sum exceeds the target: its own share is above 0."""
    most = upto[:, -1:] * (1 - 1e-12)  # a target that rounding put at the end or beyond
    return torch.searchsorted(upto, torch.minimum(target, most), right=True)
