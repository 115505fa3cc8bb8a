"""Ends an execution of Ray Data that waits for a node which is gone for good.

Ray restarts a verifier of such a node where there is room for it. Where there is none it waits
without end, and so does what the verifier had under way: it is given to no other.
"""

import threading
import time
from types import TracebackType
from typing import Self

import ray
from ray.data._internal.execution.streaming_executor import StreamingExecutor

PATIENCE_S = 60.0
"""Seconds in which nothing comes, after which the nodes are looked at."""
_LOOK_S = 1.0


class NodeWatch:
    """Watches over what Ray Data executes in this process while the block runs.

    Where nothing has come for `PATIENCE_S` and Ray has fewer CPUs than when the block began, it is
    ended, and `ended` says so. Whoever waits for it then sees its end, or an error of any class.
    """

    def __init__(self) -> None:
        self.ended = False
        self._cpus, self._came_at = 0.0, 0.0
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._cpus, self._came_at = living_cpus(), time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()

    def came(self) -> None:
        """Something has come."""
        self._came_at = time.monotonic()

    def _watch(self) -> None:
        # Also those that have ended by then: a block of theirs may be what is waited for.
        executors: set[StreamingExecutor] = set()
        while not self._over.wait(_LOOK_S):
            threads = threading.enumerate()
            executors |= {each for each in threads if isinstance(each, StreamingExecutor)}
            waited = time.monotonic() - self._came_at
            if waited > PATIENCE_S and living_cpus() < self._cpus:
                self.ended = True
                for executor in executors:
                    executor.shutdown(force=True)  # or its actors would still ask for their room
                return


def living_cpus() -> float:
    """The CPUs of the nodes that Ray has now."""
    return sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
