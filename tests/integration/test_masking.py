"""Which tokens carry loss, and that the loss is theirs alone."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import ray

from haloforge.data.chat import CHATML_TEMPLATE, Encoded, encode_example, render_prompt
from haloforge.errors import InputError
from haloforge.train.examples import encode_rows

USER = {"role": "user", "content": "add one"}


def row(answer: str) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def trained_text(tokenizer: Any, encoded: Encoded | None) -> list[str]:
    """The texts that are trained on, in order."""
    assert encoded is not None
    pairs = zip(encoded.input_ids, encoded.trained, strict=True)
    return [
        tokenizer.decode([token for token, _ in group])
        for trained, group in groupby(pairs, key=itemgetter(1))
        if trained
    ]


def test_the_answer_and_its_end_of_turn_are_trained_after_the_prompt_as_it_is_asked(
    tokenizer: Any,
) -> None:
    encoded = encode_example(tokenizer, row("last\n")["messages"], 2048)
    assert encoded is not None
    asked = render_prompt(tokenizer, [USER])
    assert encoded.input_ids[: len(asked)] == asked
    assert trained_text(tokenizer, encoded) == ["last\n<|im_end|>"]


def test_every_answer_of_a_conversation_is_trained_on_what_stood_before_it(tokenizer: Any) -> None:
    messages = [*row("first")["messages"], *row("")["messages"], *row("last")["messages"]]
    encoded = encode_example(tokenizer, messages, 2048)
    assert trained_text(tokenizer, encoded) == ["first<|im_end|>", "last<|im_end|>"]
    assert encoded is not None
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(encoded.input_ids) == whole.removesuffix("\n")
    first = encode_example(tokenizer, messages[:2], 2048)
    assert first is not None
    cut = encode_example(tokenizer, messages, len(first.input_ids) + 2)
    assert trained_text(tokenizer, cut) == ["first<|im_end|>"]


def test_an_answer_that_the_template_rewrites_later_is_only_read(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML_TEMPLATE.replace(
        "message['content'] +",
        "(message['content'] if loop.last else message['content'].split('|')[-1]) +",
    )
    messages = [*row("plan|first")["messages"], *row("plan|last")["messages"]]
    encoded = encode_example(tokenizer, messages, 2048)
    assert trained_text(tokenizer, encoded) == ["plan|last<|im_end|>"]
    assert encoded is not None
    asked = render_prompt(tokenizer, messages[:-1])
    assert encoded.input_ids[: len(asked)] == asked


def test_cut_keeps_the_head_and_drops_what_has_no_answer_left(tokenizer: Any) -> None:
    messages = row("a long enough answer")["messages"]
    whole = encode_example(tokenizer, messages, 2048)
    assert whole is not None
    prompt = whole.trained.index(True)
    one_token = encode_example(tokenizer, messages, prompt + 1)
    assert one_token is not None
    assert one_token.input_ids == whole.input_ids[: prompt + 1]
    assert encode_example(tokenizer, messages, prompt) is None
    assert encode_example(tokenizer, row("")["messages"], 2048) is None


def test_conversation_must_end_with_the_assistant(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="role 'assistant'"):
        encode_example(tokenizer, [USER], 2048)


def test_rows_are_encoded_in_order_and_dropped_rows_counted(
    tiny_model: Path, tokenizer: Any
) -> None:
    rows = [row("one"), row(""), row("three three")]
    examples, dropped = encode_rows(rows, tiny_model, 2048)
    assert dropped == 1
    found = [Encoded(*map(list, examples.row(index))) for index in range(len(examples))]
    texts = [trained_text(tokenizer, each) for each in found]
    assert texts == [["one<|im_end|>"], ["three three<|im_end|>"]]
    assert list(examples.lengths()) == [len(each.input_ids) for each in found]
    counts = [examples.trained_tokens([0]), examples.trained_tokens([1])]
    assert counts == [len(tokenizer.encode("one")) + 1, len(tokenizer.encode("three three")) + 1]


def test_rows_of_many_blocks_keep_their_order(tiny_model: Path, tokenizer: Any) -> None:
    numbers = range(2500)  # three chunks
    streamed = (row("" if number % 7 == 0 else f"answer {number}") for number in numbers)
    examples, dropped = encode_rows(streamed, tiny_model, 2048)
    left = [number for number in numbers if number % 7]
    assert (len(examples), dropped) == (len(left), 2500 - len(left))
    assert len(examples.blocks) > 1
    for index in (0, 1, 900, 1500, len(left) - 1):
        answer = trained_text(tokenizer, Encoded(*map(list, examples.row(index))))
        assert answer == [f"answer {left[index]}<|im_end|>"]
    again, _ = encode_rows([row(f"answer {number}") for number in left], tiny_model, 2048)
    assert again.digest == examples.digest
    other, _ = encode_rows([row(f"answer {number}") for number in left[::-1]], tiny_model, 2048)
    assert other.digest != examples.digest


def test_bad_rows_are_named(tiny_model: Path) -> None:
    bad: dict[str, Any] = {"messages": [USER], "row_id": "s17"}
    worse: dict[str, Any] = {"messages": []}
    with pytest.raises(InputError, match=r"training row s17: field 'messages': expected the last"):
        encode_rows([row("one"), bad, worse], tiny_model, 2048)
    with pytest.raises(InputError, match="there are no rows"):
        encode_rows([], tiny_model, 2048)
    with pytest.raises(InputError, match=r"1 rows, 1 of them dropped.*train\.max_length=4"):
        encode_rows([row("one")], tiny_model, 4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_batch_has_the_loss_and_the_gradients_of_its_rows_alone(
    tiny_model: Path, attention: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from haloforge.train.loss import token_loss_sum

    rows = [row("short"), row("a much longer answer than that"), row("x"), row("return 1")]
    rows[2]["messages"][0] = {"role": "user", "content": "a prompt longer than the others"}
    rows[3]["messages"] += row("return 2")["messages"]
    examples, _ = encode_rows(rows, tiny_model, 2048)
    model = AutoModelForCausalLM.from_pretrained(
        tiny_model, dtype=torch.float32, attn_implementation=attention
    )
    expected = torch.zeros(())
    for index in range(4):  # by hand: no padding, no neighbour, logits of every position
        ids, trained = (torch.tensor(array) for array in examples.row(index))
        log_probs = model(ids[None]).logits[0].log_softmax(-1)
        for position in trained.nonzero().flatten().tolist():
            expected = expected - log_probs[position - 1, ids[position]]
    expected.backward()
    alone = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()

    together = token_loss_sum(model, examples, [[1, 0], [2], [3]])
    assert float(together) == pytest.approx(float(expected), rel=1e-5)
    together.backward()
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad, alone[name], rtol=1e-4, atol=1e-5), name

    whole = token_loss_sum(model, examples, [[0, 1, 2, 3]])
    assert float(whole) == pytest.approx(float(expected), rel=1e-5)
    assert float(token_loss_sum(model, examples, [])) == 0.0


def test_a_model_whose_rows_see_each_other_is_told(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from haloforge.train.loss import rows_stay_apart

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    assert rows_stay_apart(model)
    assert model.training

    def carry_on(_: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0] + inputs[0].cumsum(1) * 0.01, *inputs[1:])

    model.model.layers[0].mlp.register_forward_pre_hook(carry_on)
    assert not rows_stay_apart(model)


def test_memory_that_cannot_be_had_names_the_settings() -> None:
    import torch

    from haloforge.errors import ResourceError
    from haloforge.train.loop import out_of_memory_named
    from haloforge.train.settings import TrainSettings

    complaint = r"train\.micro_batch_size \(now auto\) or train\.max_length \(now 99\)"
    with (
        pytest.raises(ResourceError, match=complaint),
        out_of_memory_named(TrainSettings(max_length=99)),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_named(TrainSettings()):
        torch.ones(2, 3) @ torch.ones(2, 3)
