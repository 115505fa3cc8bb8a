"""How fast requests are sent, and how many tokens they may cost."""

import asyncio
import time
from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Pace:
    """Turns to send a request: evenly spaced, so many a minute, and none while the server has asked
    for a pause."""

    def __init__(
        self,
        per_minute: float | None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._every = 60 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._next = self._resume = clock()

    async def turn(self) -> None:
        """Returns when one request may be sent."""
        while True:
            turn = max(self._clock(), self._next, self._resume)
            self._next = turn + self._every
            while (wait := turn - self._clock()) > 0:
                await self._sleep(wait)
            if turn >= self._resume:
                return  # else a pause was asked for meanwhile

    def pause(self, seconds: float) -> None:
        """Gives no turn for so long, to whomever."""
        self._resume = max(self._resume, self._clock() + seconds)


class Purse:
    """The tokens that may still be spent, None for any number: a request takes the most that it may
    cost before it is sent, and gives back what it did not."""

    def __init__(self, tokens: int | None) -> None:
        self._left = tokens
        self._out = 0
        self._changed = asyncio.Condition()
        self.empty = False
        """Whether a request was refused for want of tokens."""

    async def take(self, tokens: int) -> bool:
        """Waits until there are as many, for as long as others may give some back."""
        async with self._changed:
            while self._left is not None and self._left < tokens and self._out:
                await self._changed.wait()
            if self._left is not None and self._left < tokens:
                self.empty = True
                return False
            self._out += 1
            if self._left is not None:
                self._left -= tokens
            return True

    async def give(self, taken: int, spent: int) -> None:
        """The request that had `taken` so many has `spent` so many."""
        async with self._changed:
            self._out -= 1
            if self._left is not None:
                self._left += taken - spent
            self._changed.notify_all()
