"""A cluster of nodes with CPUs that watches where replicas are and how many serve."""

import math

from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.unit.controller.builders import application

ONE_CPU = control_pb2.ActorOptions(num_cpus=1)


class WatchedCluster(FakeCluster):
    """Writes down what must not happen."""

    def __init__(self, seed: int, cpus: dict[str, float]) -> None:
        super().__init__(seed, cpus=cpus)
        self.wrongs: list[str] = []
        self.fewest = math.inf
        """Replicas that served at the moment of each drain."""

    def _choose(self, actor: Actor) -> str:
        node_id = super()._choose(actor)
        limit = actor.spec.spec.options.max_replicas_per_node if isinstance(actor.spec, control_pb2.ReplicaSpec) else 0
        there = sum(each.node_id == node_id for each in self.replicas())
        if node_id and limit and there >= limit:
            self.wrongs.append(f"{actor.name} is number {there + 1} on {node_id}")
        return node_id

    async def _drain(self, actor: Actor) -> None:
        self.fewest = min(self.fewest, sum(each is not actor for each in self.serving()))
        await super()._drain(actor)


def app(version: str, num_replicas: int, per_node_max: int = 0, bundles: int = 0) -> control_pb2.ApplicationSpec:
    """Each replica takes one CPU, or this number of bundles of one."""
    spec = application(version=version, num_replicas=num_replicas)
    options = spec.deployments[0].options
    options.actor.CopyFrom(ONE_CPU)
    options.min_ready_s = 0.0
    options.max_replicas_per_node = per_node_max
    options.placement_group_bundles.extend(control_pb2.Bundle(resources={"CPU": 1}) for _ in range(bundles))
    return spec
