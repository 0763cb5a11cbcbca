"""Owns the list of the cluster's living nodes, read anew every second or, in calm times, every third."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.controller.actors.cluster_runtime import ActorCallError, Runtime
from mesh.controller.plan.cluster_picture import Node

logger = logging.getLogger("mesh")

_PERIOD_S = 1.0
_CALM_PERIOD_S = 3.0
_TIMEOUT_S = 10.0


class NodeList:
    def __init__(self, runtime: Runtime, clock: Callable[[], float]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._read_at_s = float("-inf")
        self.nodes: list[Node] = []

    def expire(self) -> None:
        """Read the list at the next look, however fresh it is: much is about to be placed by it."""
        self._read_at_s = float("-inf")

    async def refresh(self, *, is_calm: bool) -> None:
        """Does nothing when the list is fresh, which it is for longer where nobody waits for room or moves.

        When it cannot be read, the nodes stay those that were known.
        """
        if self._clock() - self._read_at_s < (_CALM_PERIOD_S if is_calm else _PERIOD_S):
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                self.nodes = await self._runtime.nodes()
        except (ActorCallError, TimeoutError) as error:
            logger.warning("the cluster's nodes could not be listed: %s", error)
        self._read_at_s = self._clock()
