"""A canary that never gets ready, crashes, or fails when something else is away, in fake time."""

import asyncio
import functools

import pytest

from mesh.client import rollout_wait
from mesh.controller.desired.changes.desired_change import with_applications
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor, Faults
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import counts, fewest, is_running
from tests.sim.odd_clusters import NeverReady
from tests.sim.shop_canary import TEN_PERCENT, shop, with_canary
from tests.unit.controller.builders import application

DEADLINE_S = 60.0


async def beside(cluster: FakeCluster, num_replicas: int = 3) -> Mesh:
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", num_replicas)
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    return mesh


def canary(mesh: Mesh) -> control_pb2.CanaryDeployment:
    (deployment,) = mesh.loop.status().applications[0].canary.deployments
    return deployment


def wait_of(mesh: Mesh) -> bool:
    """What `mesh deploy` sees of the canary: whether it runs. Raises RuntimeError when it cannot."""
    return rollout_wait._canary_runs(mesh.loop.status().applications[0])


async def deploy_with_deadline(mesh: Mesh, *, is_undone: bool = False, num_replicas: int = 3) -> None:
    def make() -> control_pb2.ApplicationSpec:
        app = application(version="v2", num_replicas=num_replicas)
        app.traffic.CopyFrom(TEN_PERCENT)
        app.deployments[0].options.progress_deadline_s = DEADLINE_S
        app.deployments[0].options.rollback_on_failure = is_undone
        return app

    await mesh.run(make)


async def test_a_canary_that_is_never_ready_ends_the_wait_for_it_with_the_reason() -> None:
    """Also under the next controller. Before, its status says what it waits for."""
    mesh = await beside(NeverReady(seed=1))
    await deploy_with_deadline(mesh)
    await mesh.until(lambda: "takes no calls now: no index" in canary(mesh).message)
    assert not wait_of(mesh)
    await mesh.crash()
    await mesh.boot()
    await mesh.until(lambda: canary(mesh).is_given_up, within_s=DEADLINE_S + 10.0)
    with pytest.raises(RuntimeError, match="it was not ready for calls within progress_deadline_s=60: no index"):
        wait_of(mesh)
    await asyncio.sleep(10 * DEADLINE_S)
    assert counts(mesh) == {"v1": 3}, "it is not tried again"
    assert is_running(mesh, "v1", 3)
    await mesh.crash()


async def test_one_replica_of_a_canary_that_is_never_ready_ends_the_wait_too() -> None:
    """The other one serves on."""
    mesh = await beside(HalfReady(seed=1), num_replicas=15)
    await deploy_with_deadline(mesh, num_replicas=15)
    await mesh.until(lambda: canary(mesh).is_given_up, within_s=DEADLINE_S + 10.0)
    assert (canary(mesh).running_replicas, canary(mesh).target_replicas) == (1, 2)
    await asyncio.sleep(DEADLINE_S)
    assert canary(mesh).running_replicas == 1
    await mesh.crash()


class HalfReady(FakeCluster):
    """One replica of v2 never takes calls."""

    first = ""

    def not_ready(self, actor: Actor) -> str:
        if actor.spec.spec.version == "v2" and not self.first:
            self.first = actor.name
        return "no index" if actor.name == self.first else ""


@pytest.mark.parametrize("fails", ["never ready", "in its constructor", "after it was ready"])
async def test_a_canary_that_fails_ends_by_itself_where_rollbacks_are_automatic(fails: str) -> None:
    """Its wait hears why, the status and the history keep it, and another canary can follow."""
    cluster = NeverReady(seed=1)
    cluster.is_over = fails != "never ready"
    cluster.broken_versions = {"v2"} if fails == "in its constructor" else set()
    mesh = await beside(cluster)
    there = set(cluster.actors)
    await deploy_with_deadline(mesh, is_undone=True)
    crashes = asyncio.create_task(_crash_when_ready(cluster)) if fails == "after it was ready" else None
    await mesh.until(lambda: not mesh.stored().canaries)
    app = mesh.loop.status().applications[0]
    assert app.rolled_back_because.startswith("the canary's deployment 'Model' ")
    with pytest.raises(RuntimeError, match="The canary of 'app' was ended: the canary's deployment 'Model'"):
        wait_of(mesh)
    assert [record.rolled_back_because for record in mesh.loop.history("app").records] == [app.rolled_back_because]
    await mesh.until(lambda: set(cluster.actors) == there)
    assert is_running(mesh, "v1", 3)
    if crashes is not None:
        crashes.cancel()
    cluster.is_over, cluster.broken_versions = True, set()
    await deploy_with_deadline(mesh, is_undone=True)
    await mesh.until(lambda: wait_of(mesh))
    assert counts(mesh) == {"v1": 3, "v2": 1}
    await mesh.crash()


async def _crash_when_ready(cluster: FakeCluster) -> None:
    while True:
        for actor in cluster.serving("v2"):
            cluster.end(actor)
        await asyncio.sleep(1.0)


async def test_a_canary_that_has_proven_itself_comes_back_after_any_outage() -> None:
    """Whatever was restarted or deployed again meanwhile."""
    mesh = await beside(cluster := FakeCluster(seed=1))
    await deploy_with_deadline(mesh, is_undone=True)
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v2": 1})
    await asyncio.sleep(30.0)
    await mesh.crash()
    cluster.faults = Faults(constructor=1.0)
    for actor in cluster.serving("v2"):
        cluster.end(actor)
    await mesh.boot()
    await deploy_with_deadline(mesh, is_undone=True)
    await asyncio.sleep(300.0)
    assert counts(mesh) == {"v1": 3}
    assert not canary(mesh).is_given_up
    cluster.faults = Faults()
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v2": 1})
    await mesh.promote()
    (promoted,) = mesh.stored().applications[0].deployments
    assert (promoted.has_run, promoted.is_proven) == (True, False), "all its replicas have yet to serve"
    await mesh.until(lambda: is_running(mesh, "v2", 3))
    await mesh.crash()


async def test_a_deployment_that_only_a_canary_has_runs_without_calls() -> None:
    """Nothing of its application says how many calls it gets, so it cannot start on demand."""
    mesh = await with_canary({"A": "a1", "B": "b2"}, 3)

    def make() -> control_pb2.ApplicationSpec:
        app = shop({"A": "a2", "B": "b1", "N": "n1"}, 3, 10.0)
        app.deployments[2].options.autoscaling.max_replicas = 4
        return app

    await mesh.run(make)
    await mesh.until(lambda: counts(mesh) == {"a1": 3, "b1": 3, "a2": 1, "n1": 1})
    await asyncio.sleep(600.0)
    assert counts(mesh) == {"a1": 3, "b1": 3, "a2": 1, "n1": 1}, "nothing calls it, and it stays"
    await mesh.crash()


@pytest.mark.parametrize("has_canary", [True, False])
async def test_what_an_application_drops_stays_until_callers_know(has_canary: bool) -> None:
    """Also where the rest of it was proven long ago."""
    mesh = await with_canary({"A": "a2", "B": "b1"}, 5)
    if not has_canary:
        await mesh.promote()
        await mesh.until(lambda: counts(mesh) == {"a2": 5, "b1": 5} and not mesh.stored().predecessors)
    kept = {"A": "a1" if has_canary else "a2"}
    unix_time_s = mesh.loop._own_changes._clocks.unix()
    app = shop(kept, 5)
    edit = functools.partial(with_applications, applications=[app], unix_time_s=unix_time_s)
    await mesh.ask(lambda: (edit, [app]))
    assert await fewest(lambda: counts(mesh).get("b1", 0), for_s=4.5) == 5
    await mesh.until(lambda: counts(mesh).get("b1", 0) == int(has_canary), within_s=15.0)
    assert mesh.app_status() == ApplicationStatus.RUNNING
    await mesh.crash()
