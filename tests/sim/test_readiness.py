"""A replica whose `check_ready` fails gets no calls and stays, in fake time."""

import asyncio

import pytest

from mesh.status import ApplicationStatus, DeploymentStatus
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import fewest, is_running, listed
from tests.sim.odd_clusters import NeverReady


async def test_a_replica_that_is_not_ready_leaves_the_snapshots_and_comes_back() -> None:
    """It is not replaced, however long that lasts, and a restarted controller hears it again."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3, health_check_period_s=5.0)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    there = set(mesh.cluster.actors)
    mesh.cluster.unready = {mesh.cluster.serving("v1")[0].name}
    await mesh.until(lambda: len(listed(mesh)) == 2)
    await asyncio.sleep(600.0)
    (deployment,) = mesh.loop.status().applications[0].deployments
    assert deployment.status == DeploymentStatus.UNHEALTHY
    assert "1 replica takes no calls now: warming up" in deployment.message
    await mesh.crash()
    await mesh.boot()
    await mesh.until(lambda: len(listed(mesh)) == 2)
    assert set(mesh.cluster.actors) == there
    mesh.cluster.unready = set()
    await mesh.until(lambda: is_running(mesh, "v1", 3), within_s=10.0)
    assert set(mesh.cluster.actors) == there
    await mesh.crash()


@pytest.mark.parametrize("is_undone", [True, False])
async def test_a_version_that_is_not_ready_in_time_has_failed(is_undone: bool) -> None:
    """Also under the next controller; the version before serves on (item 190)."""
    mesh = Mesh(1, cluster=NeverReady(seed=1))
    await mesh.boot()
    options = {"progress_deadline_s": 60.0, "rollback_on_failure": is_undone}
    await mesh.deploy("v1", 3, **options)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await mesh.deploy("v2", 3, **options)
    await asyncio.sleep(30.0)
    await mesh.crash()
    await mesh.boot()
    await asyncio.sleep(50.0)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    await mesh.until(lambda: mesh.app_status() != ApplicationStatus.DEPLOYING, within_s=30.0)
    assert mesh.app_status() == (ApplicationStatus.RUNNING if is_undone else ApplicationStatus.DEPLOY_FAILED)
    application = mesh.loop.status().applications[0]
    reason = application.rolled_back_because if is_undone else application.message
    assert "it was not ready for calls within progress_deadline_s=60: no index" in reason
    await asyncio.sleep(600.0)
    assert len(mesh.cluster.replicas()) == len(mesh.cluster.serving("v1")) == 3
    await mesh.crash()


async def test_a_first_version_waits_for_its_readiness_without_a_deadline() -> None:
    mesh = Mesh(1, cluster=(cluster := NeverReady(seed=1)))
    await mesh.boot()
    await mesh.deploy("v2", 2)
    await mesh.until(lambda: len(cluster.serving("v2")) == 2)
    there = set(cluster.actors)
    await asyncio.sleep(600.0)
    cluster.is_over = True
    await mesh.until(lambda: is_running(mesh, "v2", 2), within_s=30.0)
    assert set(cluster.actors) == there
    await mesh.crash()


async def test_a_first_version_that_is_not_ready_in_time_has_failed() -> None:
    """It is not tried again until it is deployed again; one that has run is (item 190)."""
    mesh = Mesh(1, cluster=(cluster := NeverReady(seed=1)))
    await mesh.boot()
    await mesh.deploy("v2", 2, progress_deadline_s=60.0)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    message = mesh.loop.status().applications[0].message
    assert "it was not ready for calls within progress_deadline_s=60: no index" in message
    assert "is not tried again" in message
    await mesh.until(lambda: not cluster.replicas())
    cluster.is_over = True
    await mesh.deploy("v2", 2, progress_deadline_s=60.0)
    await mesh.until(lambda: is_running(mesh, "v2", 2))
    cluster.is_over = False
    cluster.end(cluster.replicas()[0])
    await asyncio.sleep(300.0)
    assert len(cluster.serving("v2")) == 2
    cluster.is_over = True
    await mesh.until(lambda: is_running(mesh, "v2", 2))
    await mesh.crash()


async def test_an_update_waits_for_replicas_that_are_ready() -> None:
    """One that is up and takes no calls replaces none."""
    mesh = Mesh(1, cluster=(cluster := NeverReady(seed=1)))
    await mesh.boot()
    await mesh.deploy("v1", 3, health_check_period_s=5.0)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await mesh.deploy("v2", 3, health_check_period_s=5.0)
    await mesh.until(lambda: bool(cluster.serving("v2")))
    await asyncio.sleep(10.0)
    assert await fewest(lambda: len(listed(mesh)), for_s=120.0) == 3
    assert len(cluster.serving("v1")) == 3
    cluster.is_over = True
    await mesh.until(lambda: is_running(mesh, "v2", 3))
    await mesh.crash()
