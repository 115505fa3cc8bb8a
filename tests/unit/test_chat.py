"""Chat text: parsing, the template, prompts, and where an answer ends."""

from pathlib import Path
from typing import Any

import pytest

from haloforge.data.chat import (
    CHATML_TEMPLATE,
    encode_example,
    end_of_turn_ids,
    ensure_template,
    parse_chatml,
    render_prompt,
)

# As SmolLM2's: a default system prompt where the conversation has none.
DEFAULT_SYSTEM_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_parse_keeps_content_to_the_byte() -> None:
    text = (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n  two\n\nlines <|im_end|>\n"
        "<|im_start|>assistant\n```cpp\nint x;\n```\n<|im_end|>"
    )
    assert parse_chatml(text) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  two\n\nlines "},
        {"role": "assistant", "content": "```cpp\nint x;\n```\n"},
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "found no text"),
        ("plain text", "at character 0, found 'plain text'"),
        ("<|im_start|>user\nhi", "at character 0"),
        ("<|im_start|>user\nhi<|im_end|>\nstray", "found 'stray'"),
        ("<|im_start|>robot\nhi<|im_end|>", "turn 1: role 'robot'"),
        (
            "<|im_start|>user\nhi\n<|im_start|>assistant\nyes<|im_end|>",
            "turn 1: '<|im_end|>' is missing",
        ),
    ],
)
def test_parse_says_what_was_expected(text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_chatml(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_template_is_the_tokenizers_own_or_chatml(tokenizer: Any) -> None:
    own = tokenizer.chat_template
    assert ensure_template(tokenizer) == own
    tokenizer.chat_template = None
    assert ensure_template(tokenizer) == CHATML_TEMPLATE
    assert tokenizer.chat_template == CHATML_TEMPLATE


def test_prompt_ends_where_the_answer_begins(tokenizer: Any) -> None:
    ids = render_prompt(tokenizer, [{"role": "user", "content": "hi"}])
    expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == expected


def test_template_refusal_is_one_clear_error(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ValueError, match="refuses the messages: System role not supported"):
        render_prompt(tokenizer, [{"role": "user", "content": "hi"}])


def test_end_of_turn_is_the_templates_then_eos(tokenizer: Any) -> None:
    end, eos = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    tokenizer.eos_token = "<|endoftext|>"  # as in a base model
    assert end_of_turn_ids(tokenizer) == [end, eos]
    tokenizer.eos_token = "<|im_end|>"
    assert end_of_turn_ids(tokenizer) == [end]


def test_marker_outside_the_vocabulary_leaves_eos(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] + '[END]' }}{% endfor %}"
    )
    assert end_of_turn_ids(tokenizer) == [tokenizer.eos_token_id]
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-turn token"):
        end_of_turn_ids(tokenizer)


def test_default_system_prompt_is_the_same_in_training_and_sampling(tokenizer: Any) -> None:
    tokenizer.chat_template = DEFAULT_SYSTEM_TEMPLATE
    prompt = [{"role": "user", "content": "hi"}]
    sampled = render_prompt(tokenizer, prompt)
    assert "You are SmolLM" in tokenizer.decode(sampled)
    encoded = encode_example(tokenizer, [*prompt, {"role": "assistant", "content": "yes"}], 100)
    assert encoded is not None
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    answer = [*tokenizer.encode("yes"), end]
    assert encoded.input_ids == sampled + answer
    assert encoded.trained == [False] * len(sampled) + [True] * len(answer)
