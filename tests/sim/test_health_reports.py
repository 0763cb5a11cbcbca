"""Replicas that say by themselves that they are well are not called, and those that are not are found as before.

The replicas' own checks are those of the product.
"""

import asyncio

import pytest

from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.membership.own_health import OwnHealth
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.unit.controller.builders import KEY

REPLICAS = 20
LIFE_S = 600.0
PERIOD_MAX_S, TIMEOUT_S = 11.0, 30.0
"""With jitter; of a deployment that sets neither."""


class Reporting(FakeCluster):
    """Its replicas check themselves as well as they answer calls."""

    def __init__(self, *, reports: bool = True) -> None:
        super().__init__(seed=1)
        self.mesh: Mesh | None = None
        self.reports = reports
        self.calls = 0
        self.sick: set[str] = set()
        self.hanging: set[str] = set()
        self.own: dict[str, asyncio.Task[None]] = {}

    async def _construct(self, actor: Actor) -> None:
        await super()._construct(actor)
        if self.reports:

            async def check() -> str:
                await self.check(actor)
                return self.not_ready(actor)

            own = OwnHealth(actor.spec.replica_id, check, lambda: actor.spec.spec.options, self.send)
            self.own[actor.name] = asyncio.create_task(own._keep())

    def end(self, actor: Actor) -> None:
        super().end(actor)
        if task := self.own.pop(actor.name, None):
            task.cancel()

    def send(self, health: control_pb2.ReplicaHealth) -> None:
        if self.mesh is not None and self.mesh.is_up:
            self.mesh.loop.health.take(health)

    async def _check_health(self, actor: Actor) -> None:
        if isinstance(actor.spec, control_pb2.ReplicaSpec):
            self.calls += 1
            await self.check(actor)

    async def check(self, actor: Actor) -> None:
        if actor.name in self.hanging:
            await asyncio.sleep(1e9)
        if actor.name in self.sick:
            raise ActorCallError("not feeling well")


async def serving(cluster: Reporting, num_replicas: int = REPLICAS) -> Mesh:
    mesh = cluster.mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", num_replicas)
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    return mesh


def has_failed(mesh: Mesh, actor: Actor) -> bool:
    """Another replica takes its place."""
    replicas = mesh.loop.picture().observed.replicas
    return not any(each.replica_id == actor.spec.replica_id and not each.unhealthy for each in replicas)


async def finish(mesh: Mesh) -> None:
    await mesh.crash()
    for actor in list(mesh.cluster.actors.values()):
        mesh.cluster.end(actor)


async def test_replicas_that_are_well_are_not_called() -> None:
    """Except at the beginning, also of a controller, until their first reports have come."""
    calls = {}
    for reports in (True, False):
        mesh = await serving(cluster := Reporting(reports=reports))
        await asyncio.sleep(LIFE_S)
        await mesh.crash()
        await mesh.boot()
        await asyncio.sleep(LIFE_S)
        calls[reports] = cluster.calls
        await finish(mesh)
    assert calls[True] <= 2 * REPLICAS
    assert calls[False] >= REPLICAS * 2 * (LIFE_S / PERIOD_MAX_S - 2)


@pytest.mark.parametrize("reports", [True, False])
async def test_a_replica_that_is_not_well_is_replaced_after_three_failed_checks(reports: bool) -> None:
    """As soon with reports as without (item 150)."""
    mesh = await serving(cluster := Reporting(reports=reports))
    await asyncio.sleep(60.0)
    victim = cluster.serving()[0]
    cluster.sick.add(victim.name)
    before = cluster.calls
    await mesh.until(lambda: has_failed(mesh, victim), within_s=3 * PERIOD_MAX_S + 2.0)
    if reports:
        assert cluster.calls - before == 3
    await finish(mesh)


async def test_a_replica_that_says_nothing_is_called() -> None:
    """Its checks hang, its own as well as those that the controller asks for (item 151)."""
    mesh = await serving(cluster := Reporting())
    await asyncio.sleep(60.0)
    victim = cluster.serving()[0]
    cluster.hanging.add(victim.name)
    before = cluster.calls
    within_s = 2 * PERIOD_MAX_S + 5.0 + 3 * TIMEOUT_S + 2 * PERIOD_MAX_S
    await mesh.until(lambda: has_failed(mesh, victim), within_s=within_s)
    assert cluster.calls - before == 3
    await finish(mesh)


async def test_a_replica_that_takes_no_calls_leaves_the_snapshots_as_soon_as_it_says_so() -> None:
    mesh = await serving(cluster := ChecksReady(), 3)
    await asyncio.sleep(60.0)
    victim = cluster.serving()[0]
    cluster.unready.add(victim.name)

    def listed() -> int:
        return sum(each.is_serving for each in mesh.loop.picture().observed.replicas)

    await mesh.until(lambda: listed() == 2, within_s=PERIOD_MAX_S + 1.0)
    cluster.unready.clear()
    await mesh.until(lambda: listed() == 3, within_s=3.0)
    assert victim.name in cluster.actors
    await finish(mesh)


class ChecksReady(Reporting):
    async def _describe(self, actor: Actor) -> bytes:
        ready = control_pb2.ReplicaReady.FromString(await super()._describe(actor))
        ready.checks_ready = True
        return ready.SerializeToString()


async def test_a_replica_that_leaves_fails_no_health_check() -> None:
    """It refuses them for as long as its last calls take, and the metric of failed checks counts none."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    for actor in mesh.cluster.replicas():
        actor.ongoing = 1
    await mesh.deploy("v1", 1)
    await asyncio.sleep(2 * PERIOD_MAX_S)
    assert [each.is_draining for each in mesh.cluster.replicas()].count(True) == 2
    assert KEY not in mesh.loop.picture().observed.tallies
    await mesh.crash()
