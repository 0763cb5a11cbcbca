"""Orphans: what was created although its creation was reported as failed. It is found and killed, in fake time."""

import asyncio
from collections import Counter

import pytest

from mesh.cluster.keys import REPLICA_PREFIX
from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.controller.actors.orphans import OrphanCollector
from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.unit.controller.builders import application

ONE_CPU = control_pb2.Bundle(resources={"CPU": 1})


class CreatesButFails(FakeCluster):
    """The first placement group is created, but its creation is reported as failed."""

    async def _create_group(self, name: str) -> None:
        is_first = not self.groups
        await super()._create_group(name)
        if is_first:
            raise ActorCallError("the GCS did not answer in time")


def with_group() -> control_pb2.ApplicationSpec:
    app = application("app", "v1", 1)
    app.deployments[0].options.placement_group_bundles.append(ONE_CPU)
    return app


async def test_a_placement_group_whose_creation_was_reported_as_failed_is_removed() -> None:
    mesh = Mesh(1, cluster=CreatesButFails(1))
    await mesh.boot()
    await mesh.run(with_group)
    await mesh.until(lambda: len(mesh.cluster.serving()) == 1)
    assert len(mesh.cluster.groups) == 2
    await mesh.until(lambda: len(mesh.cluster.groups) == 1, within_s=30.0)
    await asyncio.sleep(60.0)
    assert is_running(mesh, "v1", 1)
    assert mesh.cluster.groups == {actor.name for actor in mesh.cluster.replicas()}
    await mesh.crash()


class RefusesToRelease(FakeCluster):
    """One placement group cannot be removed."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.groups = {f"{REPLICA_PREFIX}app#Model#a", f"{REPLICA_PREFIX}app#Model#b"}
        self.tried: Counter[str] = Counter()

    async def release(self, name: str) -> None:
        self.tried[name] += 1
        if name.endswith("#a"):
            raise ActorCallError("no")
        await super().release(name)


async def test_an_orphan_that_cannot_be_killed_does_not_keep_the_others() -> None:
    cluster = RefusesToRelease()
    search = asyncio.create_task(OrphanCollector(cluster, set).collect())
    await asyncio.sleep(45.0)
    search.cancel()
    assert cluster.groups == {f"{REPLICA_PREFIX}app#Model#a"}
    assert cluster.tried == {f"{REPLICA_PREFIX}app#Model#a": 3, f"{REPLICA_PREFIX}app#Model#b": 1}


class HangsInLists(FakeCluster):
    async def actor_names(self) -> list[str]:
        return await asyncio.Event().wait() or []


async def test_a_search_that_takes_too_long_says_so(caplog: pytest.LogCaptureFixture) -> None:
    search = asyncio.create_task(OrphanCollector(HangsInLists(seed=1), set).collect())
    await asyncio.sleep(120.0)
    search.cancel()
    timeout_s = settings().controller.orphans_timeout_s
    assert caplog.messages[0] == f"the search for orphaned actors failed: no answer within {timeout_s:g} s"
