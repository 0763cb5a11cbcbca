"""The whole controller but Ray and sockets, in fake time."""

import asyncio

import pytest

from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running


@pytest.mark.parametrize("num_replicas", [1, 3, 10])
async def test_an_update_never_takes_the_serving_below_the_target(num_replicas: int) -> None:
    """It is asserted at every moment of 20 updates in a row (C17)."""
    mesh = Mesh(seed=num_replicas)
    await mesh.boot()
    await mesh.deploy("v0", num_replicas)
    await mesh.until(lambda: is_running(mesh, "v0", num_replicas))
    fewest = Fewest(mesh.cluster)
    for update in range(1, 21):
        await mesh.deploy(f"v{update}", num_replicas)
        await mesh.until(lambda update=update: is_running(mesh, f"v{update}", num_replicas))
    assert fewest.serving == num_replicas
    assert fewest.most <= num_replicas + max(1, num_replicas // 5)
    await mesh.crash()


class Fewest:
    """Records how many replicas serve when one begins to drain, and how many exist when one is started."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.serving = len(cluster.serving())
        self.most = 0
        self._cluster = cluster
        self._drain, cluster._drain = cluster._drain, self._watched_drain  # type: ignore[method-assign]
        self._start, cluster._start = cluster._start, self._watched_start  # type: ignore[method-assign]

    async def _watched_drain(self, actor: Actor) -> None:
        self.serving = min(self.serving, sum(each is not actor for each in self._cluster.serving()))
        await self._drain(actor)

    async def _watched_start(self, actor: Actor) -> bytes:
        self.most = max(self.most, sum(not each.is_draining for each in self._cluster.replicas()))
        return await self._start(actor)


async def test_a_version_that_fails_leaves_the_old_one_serving() -> None:
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"bad"}
    await mesh.boot()
    await mesh.deploy("good", 2)
    await mesh.until(lambda: is_running(mesh, "good", 2))
    pids = mesh.cluster.serving("good")
    await mesh.deploy("bad", 2)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await asyncio.sleep(60.0)
    assert mesh.cluster.replicas() == pids
    await mesh.deploy("better", 2)
    await mesh.until(lambda: is_running(mesh, "better", 2))
    await mesh.crash()


async def test_a_failed_version_is_tried_again_when_it_is_deployed_again() -> None:
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v1"}
    await mesh.boot()
    await mesh.deploy("v1", 2)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    mesh.cluster.broken_versions = set()
    await mesh.deploy("v1", 2)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    await mesh.crash()


async def test_an_update_in_a_full_cluster_makes_room() -> None:
    """Old replicas stop first where new ones find no room (C17)."""
    mesh = Mesh(seed=1, cpus={"n1": 2.0})
    await mesh.boot()
    one_cpu = control_pb2.ActorOptions(num_cpus=1)
    await mesh.deploy("v1", 2, actor=one_cpu)
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    await mesh.deploy("v2", 2, actor=one_cpu)
    await mesh.until(lambda: is_running(mesh, "v2", 2))
    assert mesh.cluster.used("n1") == 2.0
    await mesh.crash()


async def test_a_crashed_controller_adopts_what_it_finds() -> None:
    """The same replicas go on serving, and none is started twice (item 183)."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    before = set(mesh.cluster.actors)
    for _ in range(5):
        await mesh.crash()
        await mesh.boot()
        await asyncio.sleep(30.0)
        assert set(mesh.cluster.actors) == before
    assert is_running(mesh, "v1", 3)
    await mesh.crash()


async def test_what_is_stopped_before_it_was_spawned_ends_at_once() -> None:
    """It has no process yet that could drain."""
    for seed in range(50):
        mesh = Mesh(seed)
        await mesh.boot()
        await mesh.deploy("v1", 3)
        await asyncio.sleep(0.01)
        await mesh.shut_down()
        await mesh.until(mesh.is_empty, within_s=10.0)
        assert not mesh.cluster.actors
        await mesh.crash()


async def test_a_deleted_application_leaves_nothing() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await asyncio.sleep(1.0)  # some replicas are still in their constructors
    await mesh.delete()
    assert mesh.app_status() == ApplicationStatus.DELETING
    await mesh.until(lambda: mesh.app_status() == "")
    assert not mesh.cluster.replicas()
    assert not mesh.kv.keys("code/")
    await mesh.crash()


async def test_a_deployment_is_known_to_callers_as_soon_as_its_deploy_is_answered() -> None:
    """Also one without replicas, whose first call starts them: its caller must not hear that it does not exist."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    key = DeploymentKey("app", "Model")
    stream = mesh.publisher.open(control_pb2.ProcessHello(process_id="caller"))
    mesh.publisher.subscribe(stream, [key])
    assert [each.is_missing for each in (await mesh.publisher.next_update(stream)).snapshots] == [True]
    mesh.loop._turn = asyncio.Event().wait  # type: ignore[assignment,method-assign]  # no turn ends any more
    await mesh.deploy("v1", 1, autoscaling=AutoscalingConfig(min_replicas=0, max_replicas=2).to_message())
    async with asyncio.timeout(1):
        [known] = (await mesh.publisher.next_update(stream)).snapshots
    assert (known.is_missing, known.unavailable, known.starts_on_demand) == (False, "", True)
    await mesh.crash()
