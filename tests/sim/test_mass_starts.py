"""More replicas are wanted at once than Ray is asked to start at a time."""

from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running

MANY = 100


class CountingCluster(FakeCluster):
    def __init__(self) -> None:
        super().__init__(1)
        self.spawned = 0
        self.under_way = 0
        self.most = 0
        """That were under way at the same time."""

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec, assignment: object) -> None:
        self.spawned += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await super().spawn_replica(name, spec, assignment)  # type: ignore[arg-type]
        finally:
            self.under_way -= 1


async def test_all_of_them_come_up_a_few_at_a_time() -> None:
    cluster = CountingCluster()
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", MANY)
    await mesh.until(lambda: is_running(mesh, "v1", MANY))
    assert cluster.most == settings().controller.starts_max
    assert cluster.spawned == MANY
    await mesh.crash()


async def test_those_that_wait_never_start_where_the_application_is_deleted() -> None:
    """They are gone at once, and nothing is left of the others."""
    cluster = CountingCluster()
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", MANY)
    await mesh.until(lambda: len(mesh.loop.picture().observed.replicas) == MANY)
    await mesh.delete()
    await mesh.until(mesh.is_without_applications)
    assert cluster.spawned < MANY
    assert not cluster.replicas()
    assert not mesh.failed
    await mesh.crash()


async def test_those_that_wait_never_start_where_another_version_is_wanted_meanwhile() -> None:
    cluster = CountingCluster()
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", MANY)
    await mesh.until(lambda: len(mesh.loop.picture().observed.replicas) == MANY)
    await mesh.deploy("v2", 5)
    await mesh.until(lambda: is_running(mesh, "v2", 5))
    assert cluster.spawned < MANY
    assert not mesh.failed
    await mesh.crash()
