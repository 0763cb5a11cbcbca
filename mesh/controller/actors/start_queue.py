"""The starts of replicas that wait for their turn: a mass deploy wants thousands at once.

Ray is asked to start few at the same time, so the others would wait in any case: here each is a record, not a task, and
one that is not wanted any more never begins. Gateways do not wait behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from mesh.settings import settings


class StartQueue:
    """The first that came begins first, `starts_max` are under way at a time."""

    def __init__(self, spawn_task: Callable[[Coroutine[Any, Any, None], str], object]) -> None:
        self._spawn_task = spawn_task
        self._waiting: dict[str, Callable[[], Awaitable[None]]] = {}
        """By replica id, in the order in which they came."""
        self._under_way = 0

    def __repr__(self) -> str:
        return f"<StartQueue {self._under_way} under way, {len(self._waiting)} waiting>"

    def add(self, replica_id: str, start: Callable[[], Awaitable[None]]) -> None:
        """`start` returns when the next one may begin."""
        self._waiting[replica_id] = start
        self._begin()

    def remove(self, replica_id: str) -> bool:
        """Take back a start. False: it has begun."""
        return self._waiting.pop(replica_id, None) is not None

    def _begin(self) -> None:
        while self._waiting and self._under_way < settings().controller.starts_max:
            replica_id = next(iter(self._waiting))
            self._under_way += 1
            self._spawn_task(self._carry_out(self._waiting.pop(replica_id)), f"start replica {replica_id}")

    async def _carry_out(self, start: Callable[[], Awaitable[None]]) -> None:
        try:
            await start()
        except asyncio.CancelledError:
            self._waiting.clear()  # the controller ends
            raise
        finally:
            self._under_way -= 1
            self._begin()
