"""The training examples as flat arrays: encoded once, shared by all workers of a node."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from haloforge.data.chat import encode_example
from haloforge.errors import InputError


@dataclass(frozen=True)
class Examples:
    """Rows end to end in `tokens`; row i is `tokens[offsets[i]:offsets[i + 1]]`.

    Arrays, as Ray's object store then maps them into each worker without a copy. `num_prompt[i]`
    tokens at the head of row i are read and not trained on.
    """

    tokens: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    num_prompt: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.num_prompt)

    def row(self, index: int) -> npt.NDArray[np.int32]:
        """Token ids of one row."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [int(length) for length in np.diff(self.offsets)]

    def trained_tokens(self, rows: Sequence[int]) -> int:
        """Tokens of `rows` that carry loss."""
        return sum(len(self.row(row)) - int(self.num_prompt[row]) for row in rows)


def encode_rows(
    rows: Sequence[dict[str, Any]], base_path: Path, max_length: int
) -> tuple[Examples, int]:
    """The rows' examples, and how many rows were dropped as no answer token fits `max_length`.

    Raises InputError for a row that is not a conversation which ends with the assistant, and
    when no row is left.
    """
    from transformers import AutoTokenizer  # seconds to import

    tokenizer = AutoTokenizer.from_pretrained(base_path)
    tokens: list[int] = []
    offsets, num_prompt = [0], []
    for number, row in enumerate(rows, 1):
        try:
            encoded = encode_example(tokenizer, row["messages"], max_length)
        except (ValueError, KeyError) as error:
            name = row.get("row_id", number)
            raise InputError(f"training row {name}: field 'messages': {error}") from error
        if encoded is not None:
            tokens += encoded.input_ids
            offsets.append(len(tokens))
            num_prompt.append(encoded.num_prompt)
    dropped = len(rows) - len(num_prompt)
    if not num_prompt:
        raise InputError(
            f"nothing to train on: {len(rows)} rows, {dropped} of them dropped, as no answer "
            f"token fits train.max_length={max_length}"
        )
    examples = Examples(
        np.array(tokens, np.int32), np.array(offsets, np.int64), np.array(num_prompt, np.int32)
    )
    return examples, dropped
