"""Configurations of simulated replicas: one that all take, one that all refuse, and who has which."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh

GOOD, BAD, BETTER = '"good"', '"bad"', '"better"'


def configs(mesh: Mesh) -> dict[str, int]:
    """How many replicas serve with each configuration."""
    return dict(Counter(actor.spec.spec.options.user_config_json for actor in mesh.cluster.serving()))


class Attempts(FakeCluster):
    """Counts the replicas that are reconfigured at the same time, and those that were asked to be."""

    def __init__(self, takes_s: float = 0.2) -> None:
        super().__init__(seed=1)
        self.refused_configs = {BAD}
        self.reached: set[str] = set()
        self.most_at_once = 0
        self._takes_s = takes_s
        self._at_once = 0

    async def _reconfigure(self, actor: Actor, spec: bytes) -> None:
        with self._counted(actor):
            await asyncio.sleep(self._takes_s)
            await super()._reconfigure(actor, spec)

    @contextlib.contextmanager
    def _counted(self, actor: Actor) -> Iterator[None]:
        self.reached.add(actor.name)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            self._at_once -= 1
