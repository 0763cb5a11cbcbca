"""Small deployments for tests, and the gate: a deployment whose calls wait until the test lets them through."""

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import AsyncIterator

import mesh

small = functools.partial(mesh.deployment, ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=0.5)
"""`mesh.deployment` for replicas that take no room and, when they are deleted, do not wait for calls that hang."""


@small(max_ongoing_requests=1000)
class Gate:
    """Remembers which labels came and when they were cancelled."""

    def __init__(self) -> None:
        self._opened: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._entered: list[str] = []
        self._cancelled_at_s: dict[str, float] = {}

    async def wait(self, label: str) -> str:
        """Comes back when `label` was opened."""
        self._entered.append(label)
        try:
            await self._opened[label].wait()
        except asyncio.CancelledError:
            self._cancelled_at_s[label] = time.time()
            raise
        return label

    async def stream(self, label: str) -> AsyncIterator[str]:
        """One item immediately, the second when `label` was opened."""
        yield "first"
        yield await self.wait(label)

    async def open(self, label: str) -> None:
        self._opened[label].set()

    async def entered(self) -> list[str]:
        return self._entered

    async def cancelled_at_s(self) -> dict[str, float]:
        """By label, as time.time() of this machine."""
        return self._cancelled_at_s
