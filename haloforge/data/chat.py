"""Chat text and tokens: parsing ChatML, rendering prompts, encoding a training example."""

import re
from typing import TYPE_CHECKING, NamedTuple

from jinja2.exceptions import TemplateError

from haloforge.schema import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROLES = ("system", "user", "assistant")

_TURN = re.compile(r"\s*<\|im_start\|>([^\n]*)\n(.*?)<\|im_end\|>\s*", re.DOTALL)
_SENTINEL = "haloforgesentinel"


class Encoded(NamedTuple):
    """One training example: its token ids, and of each whether it is trained on."""

    input_ids: list[int]
    trained: list[bool]


def parse_chatml(text: str) -> list[Message]:
    """The turns of `<|im_start|>role\\ncontent<|im_end|>` text, content kept to the byte.

    Raises ValueError, saying what was expected where, for text that is not ChatML throughout.
    """
    messages: list[Message] = []
    position = 0
    while position < len(text):
        turn = _TURN.match(text, position)
        if turn is None:
            found = text[position : position + 40]
            raise ValueError(
                f"expected '<|im_start|>role', a new line, content and '<|im_end|>' "
                f"at character {position}, found {found!r}"
            )
        role, content = turn.group(1).strip(), turn.group(2)
        if role not in ROLES:
            raise ValueError(f"turn {len(messages) + 1}: role {role!r} is none of {ROLES}")
        if "<|im_start|>" in content:
            raise ValueError(f"turn {len(messages) + 1}: '<|im_end|>' is missing")
        messages.append({"role": role, "content": content})
        position = turn.end()
    if not messages:
        raise ValueError("expected ChatML turns, found no text")
    return messages


def ensure_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The tokenizer's own chat template; one that has none is given ChatML."""
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHATML_TEMPLATE
    return str(tokenizer.get_chat_template())


def _render(
    tokenizer: "PreTrainedTokenizerBase", messages: list[Message], generation_prompt: bool
) -> str:
    ensure_template(tokenizer)
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation_prompt
        )
    except TemplateError as error:
        raise ValueError(f"the chat template refuses the messages: {error}") from error
    return str(text)


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    # Not verbose: long text is cut or dropped, and counted, by its caller.
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def render_prompt(
    tokenizer: "PreTrainedTokenizerBase", messages: list[Message], answer_start: str = ""
) -> list[int]:
    """Token ids of the conversation up to the assistant's next answer, and how that begins.

    Training and sampling both use this, so a policy is asked just as it was trained. Whatever
    the template adds (a default system prompt, a start token) is in here.
    Raises ValueError when the template refuses the messages.
    """
    text = _render(tokenizer, messages, generation_prompt=True)
    # Apart, as `encode_example` does it: a token never spans the two.
    return _ids(tokenizer, text) + _ids(tokenizer, answer_start)


def encode_prefix(tokenizer: "PreTrainedTokenizerBase", prefix: str) -> list[int]:
    """Token ids of text that a model continues with no chat template, with the special tokens that
    its tokenizer puts at the beginning of a text."""
    return list(tokenizer.encode(prefix, verbose=False))


def end_of_turn_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Ids at which an answer ends: the template's end of turn first, then the eos token.

    A base model's eos is often not what its template writes after an answer. A marker that the
    vocabulary has not as one special token cannot end an answer, and only eos is left.
    Raises ValueError when there is neither.
    """
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _SENTINEL}]
    after = _render(tokenizer, turns, generation_prompt=False).rpartition(_SENTINEL)[2]
    ids: list[int] = []
    following = _ids(tokenizer, after.lstrip())
    if following and following[0] in tokenizer.added_tokens_decoder:
        ids.append(following[0])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise ValueError("the tokenizer has no end-of-turn token and no eos token")
    return ids


def encode_example(
    tokenizer: "PreTrainedTokenizerBase", messages: list[Message], max_length: int
) -> Encoded | None:
    """Tokens of a conversation that ends with an assistant's answer; its answers are trained on.

    The trained tokens are each answer's and one end of turn; what is past `max_length` is cut.
    Where the template rewrites an answer once another turn follows (drops its reasoning, say), what
    came before the rewriting is only read: the model never writes what stands there. None when the
    last answer is empty or no trained token is left. Raises ValueError when the last turn is not an
    assistant's.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("expected the last message to have role 'assistant'")
    end_of_turn = end_of_turn_ids(tokenizer)[0]
    text, ids, trained = "", [], []  # type: tuple[str, list[int], list[bool]]
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _render(tokenizer, messages[:place], generation_prompt=True)
        if not prompt.startswith(text):
            text, ids, trained = "", [], []
        # Text that was sampled apart is encoded apart: a token never spans the two.
        read = _ids(tokenizer, prompt.removeprefix(text))
        answer = _ids(tokenizer, message["content"])
        ids += [*read, *answer, end_of_turn]
        trained += [False] * len(read) + [bool(answer)] * (len(answer) + 1)
        text = prompt + message["content"] + tokenizer.convert_ids_to_tokens(end_of_turn)
    if not answer or not any(trained[:max_length]):
        return None
    return Encoded(ids[:max_length], trained[:max_length])
