"""Requests over engines: to the least busy that is up, and again where an engine died with them."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError

from haloforge.errors import InfraError
from haloforge.model.policy import Policy
from haloforge.rollout.engine import ENGINE_DIED, Prompt
from haloforge.rollout.settings import Sampling

Row = TypeVar("Row")

# Requests of one prompt that go to one engine, which then computes the prompt once. More would load
# one engine while others wait.
_TOGETHER = 16


class Dispatch(Generic[Row]):
    """Hands requests to engines, and on to others while one is being restarted.

    An engine that died gets nothing until its `ready` says that it can generate again. One that Ray
    restarts no more is left out. Of equally busy engines the first from `engines[first]` on gets a
    request: no dispatch knows of another's requests, so each begins with an engine of its own.
    """

    def __init__(
        self,
        engines: Sequence[ActorHandle],
        policy: Policy,
        sampling: Sampling,
        restart_timeout_s: float,
        prompt_of: Callable[[Row], Prompt],
        first: int = 0,
    ) -> None:
        self._prompt_of = prompt_of
        self._engines = [*engines[first:], *engines[:first]]
        self._policy, self._sampling = policy, sampling
        self._restart_timeout_s = restart_timeout_s
        self._up = set(range(len(engines)))
        self._none_up_since = time.monotonic()
        self._in_flight = [0] * len(engines)
        self._sent: dict[ray.ObjectRef, tuple[int, Row]] = {}
        self._last: tuple[Prompt | None, int, int] = (None, 0, 0)
        self._returning: dict[ray.ObjectRef, int] = {}
        self._lost = ""

    def answers(
        self, rows: Iterable[Row], window: int
    ) -> Iterator[list[tuple[Row, dict[str, Any]]]]:
        """Each row with the answer to its request, in groups that ended together, with `window`
        requests under way. What ends while a group is being used comes with the next one.

        An answer that has come is never asked for again. Raises InfraError where no engine is left,
        or none came back within the time that a start may take, and what `generate` raises.
        """
        waiting = deque(rows)
        while waiting or self._sent:
            while waiting and self._up and len(self._sent) < window:
                self._send(waiting.popleft())
            answered = []
            for ended in self._ended():
                if ended in self._returning:
                    self._see_whether_back(self._returning.pop(ended), ended)
                    continue
                engine, row = self._sent.pop(ended)
                self._in_flight[engine] -= 1
                try:
                    answered.append((row, ray.get(ended)))
                except (*ENGINE_DIED, ObjectLostError):  # or the node died with the answer
                    waiting.appendleft(row)
                    self._miss(engine)
            if answered:
                yield answered

    def _send(self, row: Row) -> None:
        prompt = self._prompt_of(row)
        last, engine, together = self._last
        if prompt is not last or together == _TOGETHER or engine not in self._up:
            engine, together = min(self._up, key=self._in_flight.__getitem__), 0
        self._last = prompt, engine, together + 1
        self._in_flight[engine] += 1
        answer = self._engines[engine].generate.remote(prompt, self._sampling, self._policy)
        self._sent[answer] = engine, row

    def _ended(self) -> list[ray.ObjectRef]:
        """The requests that have ended, and the engines that are back or gone for good; there is
        one at least."""
        timeout = None
        if not self._up and not self._sent:
            waited = time.monotonic() - self._none_up_since
            timeout = max(0.0, self._restart_timeout_s - waited)
        awaited = [*self._sent, *self._returning]
        if not ray.wait(awaited, num_returns=1, timeout=timeout)[0]:
            raise InfraError(
                f"no engine came back within {self._restart_timeout_s:g} s "
                "(rollout.start_timeout_s): its node is gone or has no room"
            )
        ended, _ = ray.wait(awaited, num_returns=len(awaited), timeout=0)
        return ended

    def _miss(self, engine: int) -> None:
        if engine in self._up:
            self._up.remove(engine)
            self._none_up_since = time.monotonic()
            self._returning[self._engines[engine].ready.remote()] = engine

    def _see_whether_back(self, engine: int, ready: ray.ObjectRef) -> None:
        try:
            ray.get(ready)
        except ENGINE_DIED as error:
            self._lost = str(error).strip().splitlines()[0]
        else:
            self._up.add(engine)
        if not self._up and not self._returning:
            raise InfraError(
                f"no engine is left, rollout.max_restarts are used up: {self._lost} "
                "(the run's Ray logs say more)"
            )
