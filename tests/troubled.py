"""A run in which much goes wrong: an engine that dies, a compiler that is missing, a collapse."""

import os
import shutil
from typing import Any

import ray

from haloforge.model.policy import Policy
from haloforge.rollout.engine import Prompt
from haloforge.rollout.settings import Sampling

_RIGHT = "#include <iostream>\nint main() {{ long a, b; std::cin >> a >> b; std::cout << a + b; }}"
_WRONG = "#include <iostream>\nint main() {{ long a; std::cin >> a; std::cout << a + {number}; }}"
_SAME = "#include <iostream>\nint main() {{ return 0; }}"
_GO = "package main\nfunc main() {{ println({number}) }}"


class TroubledEngine:
    """Writes programs that differ as long as the `first` policy asks, one in eight of them in Go;
    by later ones always the same, which reads nothing. In its first life it dies of its fifth
    request."""

    def __init__(self, first: str) -> None:
        self._first, self._asked, self._finished = first, 0, 0
        self._reborn = bool(ray.get_runtime_context().was_current_actor_reconstructed)

    @ray.method(max_task_retries=-1)
    async def ready(self) -> None: ...

    @ray.method(max_task_retries=-1)
    async def facts(self) -> dict[str, Any]:
        """Those of an engine that is never busy when it is asked."""
        return {
            "policy": "",
            "first_token_at": None,
            "pid": os.getpid(),
            "in_flight": 0,
            "request_s": 0.01 * self._finished,
            "finished": self._finished,
            "capacity": 8,
        }

    async def generate(self, prompt: Prompt, sampling: Sampling, policy: Policy) -> dict[str, Any]:
        self._asked += 1
        if self._asked == 5 and not self._reborn:
            os._exit(1)
        tag, text = "cpp", _SAME
        if policy.digest == self._first:
            tag, text = ("go", _GO) if self._asked % 8 == 0 else ("cpp", _WRONG)
            text = _RIGHT + f"// {self._asked}" if self._asked % 3 == 0 else text
            tag = "cpp" if self._asked % 3 == 0 else tag
        self._finished += 1
        return {
            "completion": f"```{tag}\n{text.format(number=self._asked)}\n```",
            "num_tokens": 40 if policy.digest == self._first else 12,
            "finish_reason": "stop",
            "logprob_sum": None,
            "policy": policy.digest,
        }


def without_go() -> None:
    """A hook of Ray's: this worker is on a machine that has no Go."""
    which = shutil.which

    def found(cmd: str, mode: int = os.F_OK | os.X_OK, path: str | None = None) -> str | None:
        return None if cmd == "go" else which(cmd, mode, path)

    shutil.which = found  # type: ignore[assignment]
