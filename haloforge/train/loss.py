"""The loss of packed rows: none sees another, and only trained tokens cost logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from haloforge.train.examples import Examples

IGNORED = -100
_PROBE_TOKENS = 8


def token_loss_sum(model: Any, examples: Examples, sequences: list[list[int]]) -> torch.Tensor:
    """Cross-entropy in nats, fp32, summed over the trained tokens of `sequences`; 0 for none.

    The rows of a sequence stand end to end, the sequences are padded on the right. Each row's
    positions begin at 0, by which transformers tells the rows apart and lets none attend to
    another (Krell et al. 2021). Logits are computed for the tokens that predict a trained one.
    """
    if not sequences:  # the collectives of ZeRO need every worker's forward and backward pass
        idle = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        return model(input_ids=idle).logits.float().sum() * 0.0
    packed = pack(examples, sequences)
    tokens_BT, positions_BT, targets_BT = (  # noqa: N806
        torch.from_numpy(array).to(model.device) for array in packed
    )
    predicting_BT = targets_BT != IGNORED  # noqa: N806
    with _head_sees(model, predicting_BT):
        # With a cache transformers takes the sequence for one row.
        output = model(input_ids=tokens_BT, position_ids=positions_BT, use_cache=False)
    logits = output.logits  # [1, N, vocabulary]
    return F.cross_entropy(logits[0].float(), targets_BT[predicting_BT], reduction="sum")


def pack(examples: Examples, sequences: list[list[int]]) -> tuple[Any, Any, Any]:
    """Token ids, positions and targets, each [sequences, tokens of the longest].

    The target of a token is the next one, where that is trained on, and `IGNORED` elsewhere.
    Padding is a row of its own.
    """
    lengths = [sum(int(examples.length[row]) for row in sequence) for sequence in sequences]
    shape = len(sequences), max(lengths)
    tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORED)
    positions = np.zeros(shape, np.int64)
    for index, sequence in enumerate(sequences):
        start = 0
        for row in sequence:
            ids, trained = examples.row(row)
            end = start + len(ids)
            tokens[index, start:end] = ids
            positions[index, start:end] = np.arange(len(ids))
            targets[index, start : end - 1] = np.where(trained[1:], ids[1:], IGNORED)
            start = end
        positions[index, start:] = np.arange(shape[1] - start)
    return tokens, positions, targets


@contextmanager
def _head_sees(model: Any, chosen: torch.Tensor) -> Iterator[None]:
    """Within the block the head computes logits, [1, N, vocabulary], of the N positions that are
    `chosen`, [sequences, tokens]. Prompts and padding are spared it; whatever a model does to its
    logits after the head stays as it is, which a call of the model's parts would leave out."""
    module = getattr(model, "module", model)  # of a DeepSpeed engine
    head = module.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][chosen][None],))
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def rows_stay_apart(engine: Any) -> bool:
    """Whether the model lets no row of a sequence see the one before it.

    Not all do: a recurrent layer carries its state on. The first of two rows is replaced, and the
    logits of the second must stay the same to the bit, as all that it is computed from has.
    """
    ids = torch.arange(1, 2 * _PROBE_TOKENS + 1, device=engine.device)[None]
    positions = torch.arange(_PROBE_TOKENS, device=engine.device).repeat(2)[None]
    other = ids.clone()
    other[:, :_PROBE_TOKENS] = ids[:, :_PROBE_TOKENS].flip(1) + _PROBE_TOKENS
    engine.eval()
    second, again = (
        engine(input_ids=tokens, position_ids=positions, use_cache=False).logits[:, _PROBE_TOKENS:]
        for tokens in (ids, other)
    )
    engine.train()
    return torch.equal(second, again)
