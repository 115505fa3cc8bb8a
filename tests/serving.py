"""A server of `halo-forge serve`, and what a model on disk would answer by itself."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from haloforge.data.chat import end_of_turn_ids, render_prompt
from haloforge.model.policy import Policy, resolve_policy
from haloforge.schema import Message
from tests.processes import free_port, wait_until

_START_S = 300


@dataclass
class Server:
    """The process of the command, what it says in the file `log`, and its address."""

    process: "subprocess.Popen[bytes]"
    log: Path
    address: str

    def says(self, words: str, seconds: float = 30) -> bool:
        """Whether it has said so, or does in that time."""
        return wait_until(lambda: words in self.log.read_text(), seconds)

    def replicas(self) -> list[psutil.Process]:
        """The processes of Ray Serve's replicas with an engine."""
        found = []
        for each in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):  # one that is just ending
                if "AdapterServer" in " ".join(each.cmdline()):
                    found.append(each)
        return found


@contextmanager
def served(
    models: Sequence[str], log: Path, *settings: str, environment: Mapping[str, str] = {}
) -> Iterator[Server]:
    """A server of the `models` that answers; it is ended, if it was not."""
    port = free_port()
    command = [sys.executable, "-m", "haloforge", "serve", "--port", str(port)]
    command += [word for model in models for word in ("--model", model)]
    command += [word for setting in settings for word in ("--set", setting)]
    with log.open("wb") as told:
        process = subprocess.Popen(
            command, stdout=told, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    server = Server(process, log, f"http://127.0.0.1:{port}/v1")
    try:
        wait_until(lambda: process.poll() is not None or server.says("Ctrl-C ends it", 0), _START_S)
        assert server.says("Ctrl-C ends it", 0), log.read_text()
        yield server
    finally:
        process.terminate()
        process.wait(timeout=120)


def answer_of(model: Path | str, messages: list[Message], tokens: int) -> str:
    """The likeliest answer, token by token, in float32, as transformers and PEFT compute it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy: Policy = resolve_policy(str(model))
    tokenizer = AutoTokenizer.from_pretrained(policy.base.path)
    if policy.system is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": policy.system}, *messages]
    whole = AutoModelForCausalLM.from_pretrained(policy.base.path, dtype=torch.float32)
    if policy.adapter is not None:
        whole = PeftModel.from_pretrained(whole, policy.adapter)
    asked = torch.tensor([render_prompt(tokenizer, messages)])
    with torch.inference_mode():
        written = whole.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=end_of_turn_ids(tokenizer),
        )
    return str(tokenizer.decode(written[0, asked.shape[1] :], skip_special_tokens=True))
