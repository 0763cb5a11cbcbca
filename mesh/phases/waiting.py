"""`Waiters`: coroutines that wait until something is true. Each object belongs to one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Waiters:
    """Coroutines of one loop that wait for conditions; the owner calls `wake` where a condition may have changed."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[None], None] = {}

    async def until(self, condition: Callable[[], object]) -> None:
        """Return once `condition()` is true. It is checked now and after each `wake`. Raises what it raises."""
        while not condition():
            future = asyncio.get_running_loop().create_future()
            self._futures[future] = None
            try:
                await future
            except asyncio.CancelledError:
                # Peers can begin and cancel any number of waits between two wakes: keep none of them.
                self._futures.pop(future, None)
                raise

    def wake(self) -> None:
        """Check all conditions again. On the loop of those who wait."""
        futures, self._futures = self._futures, {}
        for future in futures:
            if not future.done():
                future.set_result(None)
