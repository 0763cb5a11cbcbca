"""A new `user_config` rolls out like a version, in fake time: to a few replicas at a time, until one fails.

Replicas that refuse it serve on with the one before.
"""

import asyncio

import pytest

from mesh.controller.actors.cluster_runtime import ActorUnreachableError
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running, listed
from tests.sim.user_configs import BAD, BETTER, GOOD, Attempts, configs


@pytest.mark.parametrize(("num_replicas", "surge"), [(1, 1), (3, 1), (10, 2)])
async def test_a_config_that_is_refused_reaches_a_few_replicas_which_serve_on(num_replicas: int, surge: int) -> None:
    """Callers keep all replicas, and the status says why the rollout has stopped (items 154, 187)."""
    mesh = Mesh(1, cluster=(cluster := Attempts()))
    await mesh.boot()
    await mesh.deploy("v1", num_replicas, user_config_json=GOOD)
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    before = set(cluster.actors)
    await mesh.deploy("v1", num_replicas, user_config_json=BAD)
    for _ in range(100):
        await asyncio.sleep(0.1)
        assert len(listed(mesh)) == num_replicas
    assert 0 < len(cluster.reached) <= surge
    assert mesh.app_status() == ApplicationStatus.DEPLOY_FAILED
    message = mesh.loop.status().applications[0].message
    assert "ValueError: bad threshold" in message
    assert "0 replicas have it" in message
    assert (set(cluster.actors), configs(mesh)) == (before, {GOOD: num_replicas})
    await mesh.deploy("v1", num_replicas, user_config_json=BETTER)
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    assert (set(cluster.actors), configs(mesh)) == (before, {BETTER: num_replicas})
    assert cluster.most_at_once <= surge
    await mesh.crash()


async def test_a_restarted_controller_knows_that_a_config_was_refused() -> None:
    """It hears so from the replicas that refused it, and tries no others."""
    mesh = Mesh(1, cluster=(cluster := Attempts()))
    await mesh.boot()
    await mesh.deploy("v1", 10, user_config_json=GOOD)
    await mesh.until(lambda: is_running(mesh, "v1", 10))
    await mesh.deploy("v1", 10, user_config_json=BAD)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    reached = set(cluster.reached)
    await mesh.crash()
    await mesh.boot()
    await asyncio.sleep(60.0)
    assert cluster.reached == reached
    assert mesh.app_status() == ApplicationStatus.DEPLOY_FAILED
    assert "ValueError: bad threshold" in mesh.loop.status().applications[0].message
    await mesh.crash()


async def test_a_controller_that_dies_during_a_reconfiguration_leaves_no_replica_with_the_wrong_config() -> None:
    """A replica says that it has a configuration when it has taken it over, not when it begins to."""
    mesh = Mesh(1, cluster=Attempts(takes_s=5.0))
    await mesh.boot()
    await mesh.deploy("v1", 4, user_config_json=GOOD)
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    await mesh.deploy("v1", 4, user_config_json=BETTER)
    await asyncio.sleep(2.0)
    await mesh.crash()
    await mesh.boot()
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    assert configs(mesh) == {BETTER: 4}
    await mesh.crash()


class Fatal(FakeCluster):
    """The process of a replica that is reconfigured dies of it."""

    async def _reconfigure(self, actor: Actor, spec: bytes) -> None:
        await asyncio.sleep(0.2)
        self.end(actor)


async def test_a_config_that_kills_its_replica_goes_no_further() -> None:
    mesh = Mesh(1, cluster=(cluster := Fatal(seed=1)))
    await mesh.boot()
    await mesh.deploy("v1", 10, user_config_json=GOOD)
    await mesh.until(lambda: is_running(mesh, "v1", 10))
    before = set(cluster.actors)
    await mesh.deploy("v1", 10, user_config_json=BAD)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await asyncio.sleep(60.0)
    assert len(before - set(cluster.actors)) <= 2
    assert len(cluster.serving()) == 10
    await mesh.crash()


class Blip(FakeCluster):
    """Connections to replicas break while calls are under way; the replicas live and go on."""

    def __init__(self, takes_s: float) -> None:
        super().__init__(seed=1)
        self.broken = asyncio.Event()
        self._takes_s = takes_s

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        if method not in ("start", "reconfigure"):
            return await super().call(name, method, *arguments)
        work = asyncio.ensure_future(super().call(name, method, *arguments))
        broken = asyncio.ensure_future(self.broken.wait())
        await asyncio.wait([work, broken], return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        if not work.done():
            raise ActorUnreachableError("the connection broke")
        return await work

    async def blink(self) -> None:
        self.broken.set()
        await asyncio.sleep(0.1)
        self.broken = asyncio.Event()

    async def _construct(self, actor: Actor) -> None:
        await asyncio.sleep(self._takes_s)
        actor.is_started = True

    async def _reconfigure(self, actor: Actor, spec: bytes) -> None:
        await asyncio.sleep(self._takes_s)
        actor.spec = control_pb2.ReplicaSpec.FromString(spec)


async def test_a_broken_connection_fails_no_reconfiguration() -> None:
    mesh = Mesh(1, cluster=(cluster := Blip(takes_s=20.0)))
    await mesh.boot()
    await mesh.deploy("v1", 3, user_config_json=GOOD)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    before = set(cluster.actors)
    await mesh.deploy("v1", 3, user_config_json=BETTER)
    await asyncio.sleep(10.0)
    await cluster.blink()
    assert len(listed(mesh)) == 3
    await mesh.until(lambda: is_running(mesh, "v1", 3), within_s=300.0)
    assert (set(cluster.actors), configs(mesh)) == (before, {BETTER: 3})
    await mesh.crash()


async def test_a_broken_connection_fails_no_start() -> None:
    """A replica that has loaded its model for minutes is not lost for it."""
    mesh = Mesh(1, cluster=(cluster := Blip(takes_s=600.0)))
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await asyncio.sleep(590.0)
    before = {actor.name for actor in cluster.replicas()}
    for _ in range(3):
        await cluster.blink()
        await asyncio.sleep(2.0)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    assert {actor.name for actor in cluster.replicas()} == before
    await mesh.crash()
