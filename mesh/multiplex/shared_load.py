"""One load of a model: all that ask for the model wait for it, and one that leaves takes nothing from the others.

A load that no call waits for goes on: a caller with a short timeout comes back and finds its model. But it keeps all
other models of its loader from loading, so one that hangs is cancelled when no call has waited for it for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mesh.settings import settings


class SharedLoad:
    """A task, and who waits for it. Belongs to one event loop."""

    def __init__(self, task: asyncio.Task[Any], on_abandoned: Callable[[SharedLoad], None]) -> None:
        """`on_abandoned` is called when the load is about to be cancelled because no call waits for it."""
        self.task = task
        self._on_abandoned = on_abandoned
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        task.add_done_callback(lambda task: self._stop_timer())

    def __repr__(self) -> str:
        return f"<SharedLoad {self.task.get_name()}, waiting: {self._waiting}>"

    async def result(self) -> Any:
        """The model. Raises what the load raises."""
        self._stop_timer()
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self.task.done():
                timeout_s = settings().replica.abandoned_load_timeout_s
                self._timer = asyncio.get_running_loop().call_later(timeout_s, self._abandon)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abandon(self) -> None:
        self._on_abandoned(self)
        self.task.cancel()
