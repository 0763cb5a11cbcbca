"""Owns the search for actors and placement groups that nobody knows: those whose start was carried out, but reported as
failed, those that could not be ended, and policies that an earlier controller has asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set

from mesh.controller.actors.cluster_runtime import (
    GATEWAY_PREFIX,
    POLICY_PREFIX,
    REPLICA_PREFIX,
    ActorCallError,
    Runtime,
)

logger = logging.getLogger("mesh")

_PERIOD_S = 10.0
_LIST_TIMEOUT_S = 10.0


class OrphanCollector:
    def __init__(self, runtime: Runtime, known_names: Callable[[], Set[str]]) -> None:
        self._runtime = runtime
        self._known_names = known_names
        self._suspects: frozenset[str] = frozenset()

    async def collect(self) -> None:
        """Look now and then, for ever."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                async with asyncio.timeout(_LIST_TIMEOUT_S):
                    await self._look()
            except (ActorCallError, TimeoutError) as error:
                logger.warning("the actors of the mesh could not be looked through: %s", error)

    async def _look(self) -> None:
        actors = await self._runtime.actor_names()
        ours = {name for name in actors if name.startswith((REPLICA_PREFIX, GATEWAY_PREFIX, POLICY_PREFIX))}
        # A placement group bears the name of its replica, which may have ended long ago or never begun.
        ours.update(await self._runtime.placement_group_names())
        unknown = frozenset(ours - self._known_names())
        # Seen once it may just be ending; what is being started is known before it exists.
        for name in sorted(unknown & self._suspects):
            await self._end(name)
        self._suspects = unknown

    async def _end(self, name: str) -> None:
        """Should it fail, it is found again; that one cannot be ended must not save the others."""
        logger.warning("%s is there without anybody having a use for it: it is ended", name)
        try:
            await self._runtime.kill(name)
            await self._runtime.release(name)
        except ActorCallError as error:
            logger.warning("%s could not be ended: %s", name, error)
