"""The list of the cluster's living nodes, read again after a period that is longer in calm times."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.controller.actors.cluster_runtime import ActorCallError, Runtime
from mesh.controller.plan.cluster_picture import Node
from mesh.settings import settings

logger = logging.getLogger("mesh")


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
        options = settings().controller
        if self._clock() - self._read_at_s < (options.nodes_calm_interval_s if is_calm else options.nodes_interval_s):
            return
        try:
            async with asyncio.timeout(options.nodes_timeout_s):
                self.nodes = await self._runtime.nodes()
        except (ActorCallError, TimeoutError) as error:
            logger.warning("the cluster's nodes could not be listed: %s", error)
        self._read_at_s = self._clock()
