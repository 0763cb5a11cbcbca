"""A node that has died and that Ray lists for a while longer, in fake time."""

import asyncio

import pytest

from mesh.controller.actors.cluster_runtime import ActorUnreachableError
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.unit.controller.builders import application

LISTED_S = 15.0
"""How long Ray takes to notice that a node is gone."""


class DeadNode(FakeCluster):
    """The ports of a dead node refuse connections, and no call reaches it; what comes to it gets no process."""

    def __init__(self, seed: int, cpus: dict[str, float]) -> None:
        super().__init__(seed, cpus=cpus)
        self.dead = ""
        self.broken = asyncio.Event()
        """Connections to it have broken."""
        self.came: list[str] = []
        """Actors that were placed on the dead node."""

    async def die(self, node_id: str) -> None:
        self.dead = node_id
        victims = [each for each in self.actors.values() if each.node_id == node_id]
        self.broken.set()
        await asyncio.sleep(LISTED_S)
        for actor in victims:
            self.end(actor)
        self.lose_node(node_id)

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        answer = asyncio.ensure_future(super().call(name, method, *arguments))
        broken = asyncio.ensure_future(self.broken.wait())
        await asyncio.wait([answer, broken], return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        actor = self.actors.get(name)
        if not answer.done() and actor is not None and actor.node_id == self.dead:
            answer.cancel()
            raise ActorUnreachableError("connection reset")
        return await answer

    async def refuses(self, address: str) -> bool:
        return bool(self.dead) and address.startswith(f"{self.dead}:")

    def _choose(self, actor: Actor) -> str:
        if actor.assignment.node_ids[:1] == (self.dead,):
            if actor.name not in self.came:
                self.came.append(actor.name)
            return ""  # its raylet does not answer
        return super()._choose(actor)


@pytest.mark.parametrize("seed", range(8))
async def test_replacements_do_not_go_to_the_node_that_has_died(seed: int) -> None:
    """Where others have room; Ray still lists it with all its resources."""
    cluster = DeadNode(seed, {"n1": 20.0, "n2": 20.0, "n3": 20.0})
    mesh = Mesh(seed, cluster=cluster)
    await mesh.boot()

    def make() -> control_pb2.ApplicationSpec:
        app = application(version="v1", num_replicas=9)
        app.deployments[0].options.actor.num_cpus = 1.0
        return app

    await mesh.run(make)
    await mesh.until(lambda: len(cluster.serving()) == 9)
    dies = asyncio.create_task(cluster.die("n3"))
    lost = {each.name for each in cluster.replicas() if each.node_id == "n3"}
    assert lost
    await mesh.until(lambda: sum(each.name not in lost for each in cluster.serving()) == 9, within_s=LISTED_S - 2.0)
    await dies
    assert not cluster.came
    await mesh.crash()
