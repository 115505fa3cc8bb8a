"""What requests will cost, before any is sent."""

from dataclasses import dataclass

from haloforge.data.generate.answers import Answers
from haloforge.data.generate.asking import about_tokens
from haloforge.data.generate.backends import Backend
from haloforge.schema import Message


@dataclass(frozen=True)
class Cost:
    """Of `requests`, each with about so many tokens read and written; `usd` is None where the price
    is not known."""

    requests: int
    input_tokens: int
    output_tokens: int
    usd: float | None


def expected(
    backend: Backend,
    sample: list[Message],
    requests: int,
    answer_tokens: int,
    answers: Answers | None,
) -> Cost:
    """What so many requests like `sample` may come to: by the mean of what was answered so far,
    else four characters a token and `answer_tokens` for an answer."""
    if answers:
        each = answers.input_tokens / len(answers), answers.output_tokens / len(answers)
    else:
        each = sum(about_tokens(turn["content"]) for turn in sample), answer_tokens
    read, written = (round(requests * tokens) for tokens in each)
    price = backend.price
    usd = None if price is None else (read * price.input + written * price.output) / 1e6
    return Cost(requests, read, written, usd)


def told(cost: Cost, backend: Backend) -> str:
    """One line of it."""
    tokens = f"about {cost.input_tokens:,} tokens to read and {cost.output_tokens:,} to write"
    what = f"{cost.requests} requests to {backend.model}, {tokens}"
    if cost.usd is None:
        return f"{what}; cost not known: no price of this model"
    return f"{what}: about {cost.usd:,.2f} USD ({backend.priced})"
