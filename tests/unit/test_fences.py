"""Where a completion stops: at the fence that closes its first block, not at one that opens it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from haloforge.rollout.engine import FENCE_LINE, Prompt, block_is_open, engine_kind
from haloforge.rollout.settings import RolloutSettings, Sampling, sampling_of
from haloforge.rollout.transformers_engine import _closing_fence
from haloforge.rollout.vllm_engine import VllmEngine

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=100, stop_at_fence=True)


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("```cpp\nint main() {}\n", True),
        ("```cpp\nint main() {}\n```\n", False),
        ("Here it is:\n```\n", True),
        ("No code at all.\n", False),
        ("- step\n  ```cpp\n  int x;\n", True),
    ],
)
def test_whether_a_block_is_open(text: str, is_open: bool) -> None:
    assert block_is_open(text) is is_open


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("```cpp\nint x;\n```\nand prose", "```cpp\nint x;\n```\n"),
        ("Look:\n```\nint x;\n```\nand prose", "Look:\n```\nint x;\n```\n"),
        ("```cpp\nint x;\n", None),
        ("prose only\n", None),
        ("```\n```\nrest", "```\n```\n"),
    ],
)
def test_where_the_first_block_closes(text: str, kept: str | None) -> None:
    end = _closing_fence(text)
    assert (text[:end] if end is not None else None) == kept


class ScriptedEngine(VllmEngine):
    """The engine's loop over answers that are given here, one a request to vLLM."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self._stop_token_ids = [2]
        self.prompts: list[list[int]] = []

    async def _complete(self, prompt_ids: list[int], params: Any, on_first_token: Any) -> Any:
        self.prompts.append(prompt_ids)
        text = self._answers.pop(0)
        stopped = text.endswith(FENCE_LINE)
        return SimpleNamespace(
            text=text,
            token_ids=[ord(c) for c in text],
            cumulative_logprob=None,
            stop_reason=FENCE_LINE if stopped else None,
            finish_reason="stop",
        )


def test_an_opening_fence_without_a_tag_does_not_end_the_answer() -> None:
    engine = ScriptedEngine("Look:\n```\n", "int x;\n```\n", "never asked for")
    answer = asyncio.run(engine.generate(Prompt([1, 2]), SAMPLING))
    assert answer.text == "Look:\n```\nint x;\n```\n"
    assert answer.num_tokens == len(answer.text)
    assert engine.prompts[1] == [1, 2, *map(ord, "Look:\n```\n")]


def test_the_start_of_the_answer_is_part_of_it() -> None:
    """Its fence is open, so that the next one closes the block."""
    engine = ScriptedEngine("\n    return 0;\n}\n```\n", "never asked for")
    start = "```cpp\nint main() {"
    answer = asyncio.run(engine.generate(Prompt([1, 2, 3], start), SAMPLING))
    assert answer.text == "```cpp\nint main() {\n    return 0;\n}\n```\n"
    assert answer.num_tokens == len(answer.text) - len(start)


def test_the_engine_is_vllm_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"vllm": object()}
    monkeypatch.setattr("importlib.util.find_spec", found.get)
    assert engine_kind(RolloutSettings()) == "vllm"
    found.clear()
    assert engine_kind(RolloutSettings()) == "transformers"
    assert engine_kind(RolloutSettings(engine="vllm")) == "vllm"


def test_top_k_reaches_vllm_and_is_off_where_it_is_greedy() -> None:
    settings = RolloutSettings(top_k=20)
    engine = ScriptedEngine()
    assert engine._params(sampling_of(settings), 8, None).top_k == 20
    assert engine._params(sampling_of(settings, greedy=True), 8, None).top_k == 0
    assert engine._params(sampling_of(RolloutSettings()), 8, None).top_k == 0
