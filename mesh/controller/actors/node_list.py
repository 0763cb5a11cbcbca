"""The list of the cluster's living nodes, read again after a period that is longer in calm times."""

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
        """Make the next `refresh` read the list, because replicas are about to be placed by it."""
        self._read_at_s = float("-inf")

    async def refresh(self, *, is_calm: bool) -> None:
        """Read the list if it is too old. A list that cannot be read leaves the known nodes as they are.

        `is_calm`: no replica waits for a node and none moves, so the list may be older.
        """
        if self._clock() - self._read_at_s < (_CALM_PERIOD_S if is_calm else _PERIOD_S):
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                self.nodes = await self._runtime.nodes()
        except (ActorCallError, TimeoutError) as error:
            logger.warning("the cluster's nodes could not be listed: %s", error)
        self._read_at_s = self._clock()
