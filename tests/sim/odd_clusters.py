"""Clusters that go wrong in one way only, which several tests know."""

import asyncio

from mesh.controller.plan.cluster_picture import Node
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster


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
