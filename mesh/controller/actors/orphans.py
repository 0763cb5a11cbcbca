"""The search for orphans: actors and placement groups of the mesh that the controller does not know.

They come from starts that succeeded but were reported as failed, from actors that could not be killed, and from the
policies of an earlier controller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set

from mesh.cluster.keys import GATEWAY_PREFIX, POLICY_PREFIX, REPLICA_PREFIX
from mesh.controller.actors.cluster_runtime import ActorCallError, Runtime
from mesh.settings import settings

logger = logging.getLogger("mesh")


class OrphanCollector:
    def __init__(self, runtime: Runtime, known_names: Callable[[], Set[str]]) -> None:
        self._runtime = runtime
        self._known_names = known_names
        self._suspects: frozenset[str] = frozenset()

    async def collect(self) -> None:
        """Search periodically; runs until it is cancelled."""
        while True:
            await asyncio.sleep(settings().controller.orphans_interval_s)
            timeout_s = settings().controller.orphans_timeout_s
            try:
                async with asyncio.timeout(timeout_s):
                    await self._search()
            except (ActorCallError, TimeoutError) as error:
                reason = str(error) or f"no answer within {timeout_s:g} s"
                logger.warning("the search for orphaned actors failed: %s", reason)

    async def _search(self) -> None:
        actors = await self._runtime.actor_names()
        ours = {name for name in actors if name.startswith((REPLICA_PREFIX, GATEWAY_PREFIX, POLICY_PREFIX))}
        # A placement group has the name of its replica, which may have ended or never started.
        ours.update(await self._runtime.placement_group_names())
        unknown = frozenset(ours - self._known_names())
        # An actor that is found once may just be ending. One that is starting is known before it exists.
        for name in sorted(unknown & self._suspects):
            await self._stop(name)
        self._suspects = unknown

    async def _stop(self, name: str) -> None:
        """Kill one orphan. A failure does not stop the others from being killed; the next search finds it again."""
        logger.warning("stopping orphaned actor %s: the controller does not know it", name)
        try:
            await self._runtime.kill(name)
            await self._runtime.release(name)
        except ActorCallError as error:
            logger.warning("%s could not be killed: %s", name, error)
