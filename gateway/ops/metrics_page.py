"""`MetricsPage`: the metrics of a node as text, made once for all that ask together.

A client that reaches the port may ask, and a page costs all processes of the node some work. So the pages of one form
are made one after the other, with pauses that leave four fifths of the time to calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from gateway.ops.exposition import TextForm, render
from gateway.ops.metric_sums import Families
from mesh.wire.blocking_work import Work, run_blocking

_PAUSE_SHARE = 4
"""Pause after a page, in multiples of the time that it took."""
_PAUSE_MAX_S = 1.0
"""Longest such pause."""


class MetricsPage:
    """The page in one form. I/O loop only."""

    def __init__(
        self,
        form: TextForm,
        scrape: Callable[[], Awaitable[Families]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._form = form
        self._scrape = scrape
        self._clock = clock
        self._sleep = sleep
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None
        """The page that waits for the present one and the pause behind it; it ends by itself."""
        self._paused_until_s = float("-inf")

    async def read(self) -> bytes:
        """The page, with what was counted until now. All that ask while one is made share the next one."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._make(), name="metrics page")
        return await asyncio.shield(self._next)

    async def _make(self) -> bytes:
        async with self._one_at_a_time:
            pause_s = self._paused_until_s - self._clock()
            if pause_s > 0:
                await self._sleep(pause_s)
            self._next = None
            began_at_s = self._clock()
            try:
                return await run_blocking(Work.TRANSLATE, render, await self._scrape(), self._form)
            finally:
                ended_at_s = self._clock()
                self._paused_until_s = ended_at_s + min(_PAUSE_SHARE * (ended_at_s - began_at_s), _PAUSE_MAX_S)
