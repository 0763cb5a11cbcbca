"""`TurnBudget`: how much is translated in one turn of the I/O loop, so that other calls go on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

SMALL_MAX_BYTES = 1024
"""Messages up to this size are not counted: to pass them on costs more than to translate them."""
ON_LOOP_MAX_BYTES = 64 * 1024
"""A longer message is translated in a thread, which takes longer but holds nothing else up."""
TURN_BYTES = 64 * 1024
"""Bytes of messages translated in one turn, in one or two milliseconds. The last message may exceed it."""


class TurnBudget:
    """Belongs to one event loop, and is used on it only."""

    __slots__ = ("_is_scheduled", "_left_bytes", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left_bytes = TURN_BYTES
        self._waiting: deque[Callable[[], object]] = deque()
        self._is_scheduled = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def take(self, size: int) -> bool:
        """Whether a message of this size may be translated now. Those that wait come first."""
        if self._waiting or self._left_bytes <= 0:
            return False
        self.spend(size)
        return True

    def spend(self, size: int) -> None:
        """Count a message that is translated in this turn."""
        self._left_bytes -= size
        self._schedule()

    def wait(self, go_on: Callable[[], object]) -> None:
        """Call `go_on` in a later turn. It translates one message, spends its size, and waits again for the next."""
        self._waiting.append(go_on)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_scheduled = False
        self._left_bytes = TURN_BYTES
        # One message for each that waits, in turn: a long answer does not hold up a short one.
        try:
            while self._waiting and self._left_bytes > 0:
                self._waiting.popleft()()
        finally:
            if self._waiting:
                self._schedule()


def fits_turn(size: int) -> bool:
    """Whether a message of this size is to be translated now, on the loop."""
    return size <= SMALL_MAX_BYTES or (size <= ON_LOOP_MAX_BYTES and turn_budget().take(size))


_local = threading.local()


def turn_budget() -> TurnBudget:
    """That of the loop that runs in this thread."""
    loop = asyncio.get_running_loop()
    budget: TurnBudget | None = getattr(_local, "budget", None)
    if budget is None or budget.loop is not loop:
        budget = _local.budget = TurnBudget(loop)
    return budget
