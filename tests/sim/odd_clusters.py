"""Clusters that go wrong in one way only, which several tests know."""

import asyncio

from mesh.controller.plan.cluster_picture import Node
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster


class CrashesLate(FakeCluster):
    """Replicas of v2 come up and die after some seconds."""

    def __init__(self, after_s: float) -> None:
        super().__init__(seed=1)
        self._after_s = after_s

    async def _construct(self, actor: Actor) -> None:
        await asyncio.sleep(1.0)
        actor.is_started = True
        if actor.spec.spec.version == "v2":
            self._own(self._die_later(actor))

    async def _die_later(self, actor: Actor) -> None:
        await asyncio.sleep(self._after_s)
        self.end(actor)


class NeverReady(FakeCluster):
    """Replicas of v2 come up and take no calls."""

    is_over = False

    def not_ready(self, actor: Actor) -> str:
        return "no index" if actor.spec.spec.version == "v2" and not self.is_over else ""


class LateLists(FakeCluster):
    """The list of nodes takes its time, or lacks a node."""

    def __init__(self) -> None:
        super().__init__(seed=1, cpus={"head": 8.0, "n1": 8.0})
        self.delay_s = 0.0
        self.lacks = ""

    async def nodes(self, asker: object = None) -> list[Node]:
        await asyncio.sleep(self.delay_s)
        return [node for node in await super().nodes(asker) if node.node_id != self.lacks]
