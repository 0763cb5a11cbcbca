"""The pace of rollouts, their pauses, and those that are undone because they fail, in fake time."""

import asyncio
import functools

import pytest

from mesh.controller.desired.changes.desired_change import rolled_back, scaled
from mesh.status import ApplicationStatus
from tests.sim.fake_actor import Faults
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import fewest, is_running, listed
from tests.sim.user_configs import BAD, GOOD, Attempts, configs
from tests.unit.controller.builders import KEY


async def serving_versions(mesh: Mesh) -> tuple[int, int]:
    await asyncio.sleep(60.0)
    return len(mesh.cluster.serving("v1")), len(mesh.cluster.serving("v2"))


# ---- Pace ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("surge", "unavailable", "least", "most"), [(0, 25, 6, 8), (50, 0, 8, 12), (25, 25, 6, 10), (100, 0, 8, 16)]
)
async def test_an_update_keeps_within_its_policy(surge: float, unavailable: float, least: int, most: int) -> None:
    """`max_surge_percent` above the target, `max_unavailable_percent` below it, and both are used (item 189)."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    policy = {"max_surge_percent": surge, "max_unavailable_percent": unavailable}
    await mesh.deploy("v1", 8, **policy)
    await mesh.until(lambda: is_running(mesh, "v1", 8))
    await mesh.deploy("v2", 8, **policy)
    told, there = [], []
    while not is_running(mesh, "v2", 8):
        await asyncio.sleep(0.1)
        told.append(len(listed(mesh)))
        # Old ones that drain do not count: they have been replaced.
        there.append(len([each for each in mesh.loop.picture().observed.replicas if not each.is_leaving]))
    assert min(told) == least
    assert max(there) == most
    await mesh.crash()


async def test_a_version_that_fails_gives_back_what_may_be_away() -> None:
    """The version before returns to its number when the rollout stops (item 190)."""
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v2"}
    await mesh.boot()
    policy = {"max_surge_percent": 0.0, "max_unavailable_percent": 50.0}
    await mesh.deploy("v1", 4, **policy)
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    await mesh.deploy("v2", 4, **policy)
    assert await fewest(lambda: len(mesh.cluster.serving("v1")), for_s=2.0) == 2
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await mesh.until(lambda: len(listed(mesh)) == 4)
    assert await fewest(lambda: len(listed(mesh)), for_s=60.0) == 4
    await mesh.crash()


# ---- Pauses ----------------------------------------------------------------------------------------------------------


async def test_a_paused_rollout_stands_still_until_it_is_resumed() -> None:
    """Replicas that die come back, and neither a restart of the controller nor a deploy ends the pause."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 5)
    await mesh.until(lambda: is_running(mesh, "v1", 5))
    await mesh.deploy("v2", 5)
    await mesh.until(lambda: len(mesh.cluster.serving("v2")) == 2)
    await mesh.pause(is_paused=True)
    versions = await serving_versions(mesh)
    assert sum(versions) >= 5
    assert await serving_versions(mesh) == versions
    (deployment,) = mesh.loop.status().applications[0].deployments
    assert deployment.is_paused
    assert "`mesh resume app` lets it go on" in deployment.message
    for victim in (*mesh.cluster.serving("v1")[:1], *mesh.cluster.serving("v2")[:1]):
        mesh.cluster.end(victim)
    await mesh.crash()
    await mesh.boot()
    assert sum(await serving_versions(mesh)) >= 5
    await mesh.deploy("v2", 5)
    assert mesh.cluster.serving("v1"), "a deploy does not resume"
    await mesh.pause(is_paused=False)
    await mesh.until(lambda: is_running(mesh, "v2", 5))
    await mesh.crash()


async def test_what_is_deployed_while_paused_waits_and_the_version_before_scales() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 2, user_config_json=GOOD)
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    await mesh.pause(is_paused=True)
    await mesh.deploy("v2", 2, user_config_json=GOOD)
    assert await serving_versions(mesh) == (2, 0)
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=4), ()))
    assert await serving_versions(mesh) == (4, 0)
    await mesh.deploy("v1", 4, user_config_json='"other"')
    await asyncio.sleep(60.0)
    assert configs(mesh) == {GOOD: 4}
    await mesh.pause(is_paused=False)
    await mesh.until(lambda: configs(mesh) == {'"other"': 4})
    await mesh.crash()


async def test_a_paused_rollout_scales_down_and_leaves_both_versions() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 6)
    await mesh.until(lambda: is_running(mesh, "v1", 6))
    await mesh.pause(is_paused=True)
    await mesh.deploy("v2", 6)
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=4), ()))
    assert await serving_versions(mesh) == (4, 0)
    assert await fewest(lambda: len(mesh.cluster.serving("v1")), for_s=60.0) == 4
    await mesh.pause(is_paused=False)
    await mesh.until(lambda: len(mesh.cluster.serving("v2")) == 1)
    await mesh.pause(is_paused=True)
    _, new = await serving_versions(mesh)
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=2), ()))
    assert await serving_versions(mesh) == (2, min(new, 2)), "none stops for a new one"
    await mesh.crash()


async def test_a_paused_rollout_that_scales_up_waits_in_the_queue_of_a_full_cluster() -> None:
    """There the cluster's autoscaler sees what is missing."""
    mesh = Mesh(1, cpus={"n1": 3.0})
    one_cpu = {"actor": {"resources": {"CPU": 1.0}}}
    await mesh.boot()
    await mesh.deploy("v1", 3, **one_cpu)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await mesh.pause(is_paused=True)
    await mesh.deploy("v2", 3, **one_cpu)
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=5), ()))
    await asyncio.sleep(60.0)
    assert [actor.spec.spec.version for actor in mesh.cluster.replicas()] == ["v1"] * 5
    await mesh.crash()


# ---- Rollbacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_update_that_fails_is_undone_once(is_late: bool) -> None:
    """Whether its constructor fails or it dies after seconds; the reason is stored (items 189, 190)."""
    cluster = FakeCluster(seed=1)
    if is_late:
        cluster.crashing_versions = {"v2": 5.0}
    else:
        cluster.broken_versions = {"v2"}
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", 3, rollback_on_failure=True)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    olds = {actor.name for actor in cluster.serving("v1")}
    await mesh.deploy("v2", 3, rollback_on_failure=True)
    await mesh.until(lambda: mesh.loop.status().applications[0].rolled_back_because != "")
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    assert {actor.name for actor in cluster.serving("v1")} == olds
    reason = mesh.loop.status().applications[0].rolled_back_because
    assert reason.startswith("deployment 'Model' " + ("came up and failed" if is_late else "failed to start"))
    (record,) = mesh.loop.history("app").records
    assert (record.author, record.is_rollback, record.rolled_back_because) == ("controller", True, reason)
    state = mesh.stored().version
    await asyncio.sleep(600.0)
    assert mesh.stored().version == state, "it is undone once"
    await mesh.crash()


async def test_a_version_that_was_gone_back_to_in_an_outage_comes_back_after_it() -> None:
    """Replicas of the failed update serve meanwhile: they make no new version of the one that had proven itself."""
    mesh = Mesh(1, cluster=(cluster := FakeCluster(seed=1)))
    await mesh.boot()
    await mesh.deploy("v1", 4, rollback_on_failure=True)
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    await mesh.deploy("v2", 4, rollback_on_failure=True)
    await mesh.until(lambda: len(cluster.serving("v2")) == 2)
    cluster.faults = Faults(constructor=1.0)
    for actor in (*cluster.serving("v1"), cluster.serving("v2")[0]):
        cluster.end(actor)
    await mesh.until(lambda: mesh.loop.status().applications[0].rolled_back_because != "")
    await asyncio.sleep(120.0)
    assert [actor.spec.spec.version for actor in cluster.serving()] == ["v2"]
    cluster.faults = Faults()
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    assert mesh.app_status() == ApplicationStatus.RUNNING
    await mesh.crash()


@pytest.mark.parametrize("is_automatic", [True, False])
async def test_an_update_that_is_undone_keeps_the_number_that_it_was_scaled_to(is_automatic: bool) -> None:
    """Who scales while an update fails needs these replicas, whichever version they are of."""
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v2"}
    await mesh.boot()
    await mesh.deploy("v1", 2)
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    await mesh.deploy("v2", 2, rollback_on_failure=is_automatic)
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=6), ()))
    if not is_automatic:
        await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
        await mesh.until(lambda: len(mesh.cluster.serving("v1")) == 6)
        await mesh.ask(lambda: (functools.partial(rolled_back, name="app", unix_time_s=0.0), ()))
    await mesh.until(lambda: is_running(mesh, "v1", 6))
    assert await fewest(lambda: len(mesh.cluster.serving("v1")), for_s=60.0) == 6
    await mesh.crash()


async def test_a_user_config_that_is_refused_is_undone_too() -> None:
    mesh = Mesh(1, cluster=Attempts())
    await mesh.boot()
    await mesh.deploy("v1", 4, user_config_json=GOOD, rollback_on_failure=True)
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    await mesh.deploy("v1", 4, user_config_json=BAD, rollback_on_failure=True)
    await mesh.until(lambda: mesh.loop.status().applications[0].rolled_back_because != "")
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    assert configs(mesh) == {GOOD: 4}
    assert "bad threshold" in mesh.loop.status().applications[0].rolled_back_because
    await mesh.deploy("v1", 4, user_config_json='"better"', rollback_on_failure=True)
    await mesh.until(lambda: configs(mesh) == {'"better"': 4})
    assert not mesh.loop.status().applications[0].rolled_back_because
    await mesh.crash()


async def test_a_first_version_that_fails_has_nothing_to_go_back_to() -> None:
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v1"}
    await mesh.boot()
    await mesh.deploy("v1", 2, rollback_on_failure=True)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await asyncio.sleep(60.0)
    (app,) = mesh.loop.status().applications
    assert (app.status, app.rolled_back_because) == (ApplicationStatus.DEPLOY_FAILED, "")
    await mesh.crash()
