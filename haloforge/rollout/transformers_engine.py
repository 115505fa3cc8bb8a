"""The fallback where vLLM is not installed: `transformers.generate` over batches of requests."""

import asyncio
import os
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from haloforge.model.policy import Policy
from haloforge.rollout.engine import (
    FENCE_LINE,
    Completion,
    EngineSpec,
    Prompt,
    block_is_open,
    computed_dtype,
)
from haloforge.rollout.merged import weights_of
from haloforge.rollout.settings import Sampling

DECODED_BEFORE = 8  # tokens


@dataclass
class _Request:
    prompt: Prompt
    sampling: Sampling
    done: "asyncio.Future[Completion]"
    on_first_token: Callable[[], None] | None


class TransformersEngine:
    """Completes what is waiting, at most `max_num_seqs` at once, in one `generate` call."""

    def __init__(self, spec: EngineSpec) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(spec.cores)))
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if spec.cores:
            torch.set_num_threads(len(spec.cores))
        torch.manual_seed(spec.seed)
        self._torch = torch
        self._spec = spec
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = getattr(torch, computed_dtype(spec.settings.dtype, self._device == "cpu"))
        self._dtype = dtype
        self._load: Any = AutoModelForCausalLM.from_pretrained
        self._model = self._load(spec.base.path, dtype=dtype).to(self._device).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(spec.base.path)
        self._waiting: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def dead(self) -> bool:
        return False  # it has no process but the actor's

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_first_token: Callable[[], None] | None = None
    ) -> Completion:
        """One completion; requests that wait together are completed together."""
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(prompt, sampling, done, on_first_token))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        await asyncio.sleep(0.05)  # lets requests that come together be one batch
        while self._waiting:
            sampling = self._waiting[0].sampling
            batch = [r for r in self._waiting if r.sampling == sampling]
            batch = batch[: self._spec.settings.max_num_seqs]
            self._waiting = [r for r in self._waiting if r not in batch]
            try:
                completions = await asyncio.to_thread(self._complete, batch, sampling)
            except Exception as error:  # each caller learns of it; none is left waiting
                for request in batch:
                    request.done.set_exception(error)
                continue
            for request, completion in zip(batch, completions, strict=True):
                request.done.set_result(completion)

    def _complete(self, batch: list[_Request], sampling: Sampling) -> list[Completion]:
        torch = self._torch
        pad = self._spec.stop_token_ids[0]
        width = max(len(request.prompt.token_ids) for request in batch)
        rows = [[pad] * (width - len(r.prompt.token_ids)) + r.prompt.token_ids for r in batch]
        mask = [
            [0] * (width - len(r.prompt.token_ids)) + [1] * len(r.prompt.token_ids) for r in batch
        ]
        input_ids = torch.tensor(rows, device=self._device)  # [batch, width]
        sampled = sampling.temperature > 0
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=input_ids,
                attention_mask=torch.tensor(mask, device=self._device),
                max_new_tokens=sampling.max_tokens,
                do_sample=sampled,
                temperature=sampling.temperature if sampled else None,
                top_p=sampling.top_p if sampled else None,
                top_k=sampling.top_k if sampled else None,
                eos_token_id=list(self._spec.stop_token_ids),
                pad_token_id=pad,
                stopping_criteria=[self._calls(batch)],
                return_dict_in_generate=True,
                output_logits=sampling.logprobs,
            )
        tokens = output.sequences[:, width:]  # [batch, new]
        logprobs = None
        if sampling.logprobs:
            logits = torch.stack(output.logits, dim=1).float()  # [batch, new, vocabulary]
            logprobs = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        return [
            self._completion(
                batch[i].prompt,
                row.tolist(),
                logprobs[i].tolist() if logprobs is not None else None,
                sampling,
            )
            for i, row in enumerate(tokens)
        ]

    def _calls(self, batch: list[_Request]) -> Callable[..., Any]:
        """A criterion that stops nothing: it calls `on_first_token` of the batch, once each."""
        calls = [r.on_first_token for r in batch if r.on_first_token is not None]

        def criterion(input_ids: Any, scores: Any, **_: Any) -> Any:  # [batch, length so far]
            while calls:
                calls.pop()()
            return self._torch.zeros(len(input_ids), dtype=bool, device=input_ids.device)

        return criterion

    def _completion(
        self, prompt: Prompt, tokens: list[int], logprobs: list[float] | None, sampling: Sampling
    ) -> Completion:
        stops = set(self._spec.stop_token_ids)
        length = next((i for i, token in enumerate(tokens) if token in stops), len(tokens))
        number = min(length + 1, len(tokens))  # with the token that ended it
        ended = length < len(tokens)
        written = self._decode(prompt.token_ids, tokens[:length])
        if (end := _end(prompt, written, sampling)) is not None:
            kept, read = end
            number = bisect_left(
                range(length), read, key=lambda n: len(self._decode(prompt.token_ids, tokens[:n]))
            )
            written, ended = written[:kept], True
        return Completion(
            prompt.answer_start + written,
            number,
            "stop" if ended else "length",
            sum(logprobs[:number]) if logprobs is not None else None,
        )

    def _decode(self, before: list[int], tokens: list[int]) -> str:
        """The text of `tokens` where they follow `before`: alone, some tokenizers would drop the
        space that they begin with."""
        head, text = (
            self._tokenizer.decode(ids, skip_special_tokens=True)
            for ids in (before[-DECODED_BEFORE:], before[-DECODED_BEFORE:] + tokens)
        )
        return str(text).removeprefix(head)

    async def take(self, policy: Policy) -> None:
        """Loads the policy, merged, in place of the model in memory."""
        async with weights_of(policy) as folder:
            model = await asyncio.to_thread(self._load, folder, dtype=self._dtype)
        self._model = model.to(self._device).eval()

    async def sleep(self) -> None:
        """Moves the weights to the CPU's memory."""
        self._model.to("cpu")
        self._torch.cuda.empty_cache()

    async def wake(self) -> None:
        """Moves the weights back."""
        self._model.to(self._device)

    async def stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()


def _end(prompt: Prompt, written: str, sampling: Sampling) -> tuple[int, int] | None:
    """How much of `written` belongs to the answer where a string ends it, and how much had to be
    written to see that, in characters; None where none does."""
    if prompt.stop is not None:
        found = [(cut, cut + len(s)) for s in prompt.stop if (cut := written.find(s)) >= 0]
        return min(found, default=None)
    start = prompt.answer_start
    fence = _closing_fence(start + written) if sampling.stop_at_fence else None
    return None if fence is None else (fence - len(start), fence - len(start))


def _closing_fence(text: str) -> int | None:
    """Where the first code block of `text` has closed; None while it has not."""
    end = 0
    while (found := text.find(FENCE_LINE, end)) >= 0:
        end = found + len(FENCE_LINE)
        if not block_is_open(text[:end]):
            return end
        end -= 1  # the newline may begin the next fence line
    return None
