"""The list of the cluster's living nodes, read again after a period that is longer in calm times.

One list may be incomplete. A node counts as gone when two readings in a row lack it; where many are missing at once,
the list is more likely to be wrong than the nodes to be gone, and it is believed only after a while. What has really
gone with its node is reported by its own end, which does not wait for the list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mesh.controller.actors.cluster_runtime import ActorCallError, Runtime
from mesh.controller.plan.cluster_picture import Node
from mesh.options.deployments.rollout_policy import third_of
from mesh.settings import settings

logger = logging.getLogger("mesh")


class NodeList:
    def __init__(self, runtime: Runtime, clock: Callable[[], float]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._read_at_s = float("-inf")
        self._missing_since_at_s: dict[str, float] = {}
        """Nodes that the last reading lacked, and since when."""
        self.nodes: list[Node] = []
        self._absent_since_at_s: dict[str, float] = {}
        """Since when nodes are missing that were asked for, by id."""
        self._reading: asyncio.Task[None] | None = None
        self.problem = ""
        """Not empty: many nodes are missing from the list, and it is not believed yet."""

    def __repr__(self) -> str:
        return f"<NodeList {len(self.nodes)} nodes, {self.problem or 'believed'}>"

    def expire(self) -> None:
        """Make the next `refresh` read the list, because replicas are about to be placed by it."""
        self._read_at_s = float("-inf")

    def long_gone(self, node_ids: Iterable[str]) -> list[str]:
        """Those of these nodes that have been gone for so long that nothing needs to be known of them any more."""
        if not self.nodes:
            return []
        present, now_s = {node.node_id for node in self.nodes}, self._clock()
        absent = [each for each in node_ids if each not in present]
        self._absent_since_at_s = {each: self._absent_since_at_s.get(each, now_s) for each in absent}
        memory_s = settings().controller.cordon_memory_s
        return [each for each, since_at_s in self._absent_since_at_s.items() if now_s - since_at_s >= memory_s]

    async def refresh(self, *, is_calm: bool) -> None:
        """Read the list if it is too old. A list that cannot be read leaves the known nodes as they are.

        A slow answer is waited for by later calls, because deaths have to be published meanwhile. `is_calm`: no replica
        waits for a node and none moves, so the list may be older.
        """
        options = settings().controller
        is_calm = is_calm and not self._missing_since_at_s
        interval_s = options.nodes_calm_interval_s if is_calm else options.nodes_interval_s
        if self._reading is None:
            if self._clock() - self._read_at_s < interval_s:
                return
            self._reading = asyncio.create_task(self._read(), name="node list")
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([self._reading], timeout=options.turn_interval_s)
        if self._reading.done():
            reading, self._reading = self._reading, None
            reading.result()

    async def _read(self) -> None:
        timeout_s = settings().controller.nodes_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                self._take(await self._runtime.nodes())
        except (ActorCallError, TimeoutError) as error:
            reason = str(error) or f"no answer within {timeout_s:g} s"
            logger.warning("the cluster's nodes could not be listed: %s", reason)
        self._read_at_s = self._clock()

    def _take(self, listed: Sequence[Node]) -> None:
        present = {node.node_id for node in listed}
        missing = [node for node in self.nodes if node.node_id not in present]
        now_s = self._clock()
        self._missing_since_at_s = {node.node_id: self._missing_since_at_s.get(node.node_id, now_s) for node in missing}
        is_mass = len(missing) > third_of(len(self.nodes))
        wait_s = settings().controller.mass_loss_wait_s if is_mass else 0.0
        # Those without a wait are gone at the second reading.
        waiting = [
            node
            for node in missing
            if (since_at_s := self._missing_since_at_s[node.node_id]) == now_s or now_s - since_at_s < wait_s
        ]
        self._report(len(missing) if is_mass and waiting else 0, wait_s)
        for node_id in {node.node_id for node in missing} - {node.node_id for node in waiting}:
            del self._missing_since_at_s[node_id]
        # Nothing is placed on them meanwhile.
        self.nodes = [*listed, *(replace(node, available={}) for node in waiting)]

    def _report(self, missing: int, wait_s: float) -> None:
        problem = (
            f"{missing} of {len(self.nodes)} nodes are missing from Ray's list at once: it is believed after"
            f" {wait_s:g} s, or when their processes are known to have ended."
            if missing
            else ""
        )
        if problem and not self.problem:
            logger.warning("%s", problem)
        self.problem = problem
