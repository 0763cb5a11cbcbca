"""A canary runs beside its application, whatever happens to that, until it is promoted or ended, in fake time."""

import asyncio
import functools

import pytest

from mesh.controller.desired.changes.desired_change import (
    InvalidChangeError,
    rolled_back,
    scaled,
    with_pause,
    with_promoted,
)
from mesh.controller.desired.desired_state import read_desired
from mesh.controller.plan.cluster_picture import Failures, Observed
from mesh.controller.plan.failed_updates import failed_updates
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import counts, fewest, is_running, listed
from tests.sim.shop_canary import TEN_PERCENT
from tests.sim.storm import RecordedCluster
from tests.unit.controller.builders import KEY, application, replica


async def deploy_canary(
    mesh: Mesh, version: str, num_replicas: int, rule: control_pb2.TrafficRule = TEN_PERCENT, config: str | None = None
) -> None:
    def make() -> control_pb2.ApplicationSpec:
        app = application(version=version, num_replicas=num_replicas)
        app.traffic.CopyFrom(rule)
        if config is not None:
            app.deployments[0].options.user_config_json = config
        return app

    await mesh.run(make)


def told(mesh: Mesh) -> tuple[str, float, dict[str, int]]:
    """The canary's version and share, and how many replicas of each version callers know."""
    snapshot = mesh.publisher._snapshots[KEY].newest
    versions = [each.version for each in snapshot.replicas]
    return snapshot.canary_version, snapshot.traffic.percent, {each: versions.count(each) for each in set(versions)}


async def test_a_canary_starts_what_it_is_to_have_and_its_promotion_what_is_missing() -> None:
    """Once each: a start too many would stop again, and be seen by no one but the nodes."""
    cluster = RecordedCluster(seed=1)
    mesh = cluster.mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", 10)
    await mesh.until(lambda: is_running(mesh, "v1", 10))
    await deploy_canary(mesh, "v2", 10, control_pb2.TrafficRule(percent=50.0))
    await mesh.until(lambda: counts(mesh) == {"v1": 10, "v2": 5})
    await asyncio.sleep(20.0)
    assert sum(line.endswith(" v2") for line in cluster.history) == 5
    await mesh.promote()
    await mesh.until(lambda: is_running(mesh, "v2", 10))
    assert sum(line.endswith(" v2") for line in cluster.history) == 10
    assert cluster.complaints() == ""
    await mesh.crash()


async def test_a_canary_outlives_restarts_deploys_and_scaling_and_is_promoted_without_a_gap() -> None:
    """The version beside it keeps its number all the time."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 15)
    await mesh.until(lambda: is_running(mesh, "v1", 15))
    await deploy_canary(mesh, "v2", 15)
    await mesh.until(lambda: counts(mesh) == {"v1": 15, "v2": 2})
    await mesh.until(lambda: told(mesh) == ("v2", 10.0, {"v1": 15, "v2": 2}))
    assert mesh.app_status() == ApplicationStatus.RUNNING
    (canary,) = mesh.loop.status().applications[0].canary.deployments
    assert (canary.version, canary.running_replicas, canary.target_replicas) == ("v2", 2, 2)
    await mesh.crash()
    await mesh.boot()
    assert await fewest(lambda: sum(counts(mesh).values()), for_s=30.0) == 17
    mesh.cluster.end(mesh.cluster.serving("v2")[0])
    await mesh.until(lambda: counts(mesh) == {"v1": 15, "v2": 2})
    await mesh.deploy("v3", 15)
    await mesh.until(lambda: counts(mesh) == {"v3": 15, "v2": 2})
    assert told(mesh)[:2] == ("v2", 10.0)
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=25), ()))
    await mesh.until(lambda: counts(mesh) == {"v3": 25, "v2": 3})
    canaries = {actor.name for actor in mesh.cluster.serving("v2")}
    await mesh.promote()
    assert await fewest(lambda: sum(counts(mesh).values()), for_s=20.0) >= 15
    await mesh.until(lambda: is_running(mesh, "v2", 15))
    assert canaries <= {actor.name for actor in mesh.cluster.serving("v2")}, "its replicas stay"
    assert told(mesh)[:2] == ("", 0.0)
    await mesh.until(lambda: not mesh.stored().predecessors)
    await mesh.roll_back()
    await mesh.until(lambda: is_running(mesh, "v3", 25))
    await mesh.crash()


async def test_a_rollback_ends_the_canary_and_nothing_else() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    olds = {actor.name for actor in mesh.cluster.serving("v1")}
    await deploy_canary(mesh, "v2", 3, control_pb2.TrafficRule(header="x-canary"))
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v2": 1})
    await mesh.roll_back()
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    assert {actor.name for actor in mesh.cluster.serving("v1")} == olds
    assert not mesh.stored().canaries
    await mesh.crash()


async def test_a_canary_that_cannot_start_takes_nothing_and_says_why() -> None:
    """The application is as it was, and the canary is given up."""
    mesh = Mesh(1, cluster=(cluster := FakeCluster(seed=1)))
    cluster.broken_versions = {"v2"}
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await deploy_canary(mesh, "v2", 3)
    await asyncio.sleep(60.0)
    assert is_running(mesh, "v1", 3)
    (canary,) = mesh.loop.status().applications[0].canary.deployments
    assert "ValueError: no model" in canary.message
    assert "is not tried again" in canary.message
    cluster.broken_versions = set()
    await deploy_canary(mesh, "v2", 3)
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v2": 1})
    await mesh.crash()


async def test_a_canary_may_differ_in_its_user_config_only() -> None:
    """Promoted and deployed again it keeps its replicas."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3, user_config_json="1")
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await deploy_canary(mesh, "v1", 3, config="2")
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v1+config": 1})
    await mesh.promote()
    await mesh.until(lambda: is_running(mesh, "v1+config", 3))
    there = set(mesh.cluster.actors)
    await mesh.deploy("v1", 3, user_config_json="2")
    await asyncio.sleep(60.0)
    assert is_running(mesh, "v1+config", 3)
    assert set(mesh.cluster.actors) == there
    await mesh.crash()


async def test_a_deploy_of_the_canary_s_version_ends_it_as_a_promotion_does() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await deploy_canary(mesh, "v2", 3)
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v2": 1})
    await mesh.deploy("v2", 3)
    await mesh.until(lambda: is_running(mesh, "v2", 3))
    assert not mesh.stored().canaries
    await mesh.crash()


@pytest.mark.parametrize("is_held", [True, False])
async def test_replicas_of_an_ended_canary_leave_a_rollout_that_stands_still(is_held: bool) -> None:
    """Paused or given up: the version before serves with its full number, at no time with less."""
    mesh = Mesh(1, cluster=(cluster := FakeCluster(seed=1)))
    cluster.broken_versions = {"v2"}
    await mesh.boot()
    await mesh.deploy("v1", 6)
    await mesh.until(lambda: is_running(mesh, "v1", 6))
    edit = functools.partial(with_pause, application="app", deployment="", is_paused=is_held)
    await mesh.ask(lambda: (edit, ()))
    await mesh.deploy("v2", 6)
    await asyncio.sleep(60.0)
    await deploy_canary(mesh, "v3", 6, control_pb2.TrafficRule(percent=50.0))
    await mesh.until(lambda: counts(mesh) == {"v1": 6, "v3": 3})
    for victim in mesh.cluster.serving("v1")[:2]:
        mesh.cluster.end(victim)
    await mesh.roll_back()
    assert await fewest(lambda: sum(counts(mesh).values()), for_s=60.0) >= 6
    assert counts(mesh) == {"v1": 6}
    assert len(listed(mesh)) == 6
    await mesh.crash()


async def test_a_canary_does_not_try_a_failed_update_of_its_application_again() -> None:
    mesh = Mesh(1, cluster=(cluster := FakeCluster(seed=1)))
    cluster.broken_versions = {"v2"}
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await mesh.deploy("v2", 3)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    tried: set[str] = set()

    def is_tried() -> bool:
        tried.update(actor.spec.spec.version for actor in cluster.replicas())
        return "v2" in tried

    await asyncio.sleep(5.0)
    await deploy_canary(mesh, "v3", 3)
    assert await fewest(lambda: int(not is_tried()), for_s=60.0) == 1
    assert mesh.app_status() == ApplicationStatus.DEPLOY_FAILED
    assert counts(mesh) == {"v1": 3, "v3": 1}
    await mesh.crash()


class CountsReconfigures(FakeCluster):
    reconfigures = 0

    async def _reconfigure(self, actor: Actor, spec: bytes) -> None:
        self.reconfigures += 1
        await super()._reconfigure(actor, spec)


async def test_an_application_and_its_canary_each_refuse_a_configuration_once() -> None:
    """Neither forgets what the other one refused (item 154)."""
    mesh = Mesh(1, cluster=(cluster := CountsReconfigures(seed=1)))
    cluster.refused_configs = {"2", "3"}
    await mesh.boot()
    await mesh.deploy("v1", 3, user_config_json="1")
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await deploy_canary(mesh, "v1", 3, config="4")
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v1+config": 1})
    await mesh.deploy("v1", 3, user_config_json="2")
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await deploy_canary(mesh, "v1", 3, config="3")
    await asyncio.sleep(60.0)
    assert cluster.reconfigures == 2
    await mesh.crash()


def test_crashes_beside_a_canary_do_not_undo_an_application() -> None:
    """The canary's replicas are not a version before that a failing update would go back to."""
    app = application(version="v1")
    app.deployments[0].options.rollback_on_failure = True
    before = control_pb2.ApplicationSpec()
    before.CopyFrom(app)
    before.deployments[0].is_proven = True
    app.deployments[0].has_run = True
    canary = application(version="v3")
    canary.traffic.CopyFrom(TEN_PERCENT)
    state = control_pb2.DesiredState(applications=[app], predecessors=[before], canaries=[canary])
    crashed = Failures(version="v1", count=4, has_succeeded=True, message="OOM")
    seen = Observed(replicas=(replica(version="v1"), replica(version="v3")), replica_failures={(KEY, "v1"): crashed})
    assert not failed_updates(read_desired(state), seen)
    state.predecessors[0].deployments[0].version = "v0"
    assert failed_updates(read_desired(state), seen), "an update may fail as before"


async def test_a_canary_drains_as_its_own_options_say() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 4)
    await mesh.until(lambda: is_running(mesh, "v1", 4))

    def make() -> control_pb2.ApplicationSpec:
        app = application(version="v2", num_replicas=4)
        app.traffic.percent = 50.0
        app.deployments[0].options.graceful_shutdown_timeout_s = 300.0
        return app

    await mesh.run(make)
    await mesh.until(lambda: counts(mesh) == {"v1": 4, "v2": 2})
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=2), ()))
    drains: dict[str, float] = {}

    def have_left() -> bool:
        leaving = (each for each in mesh.loop.picture().observed.replicas if each.is_leaving)
        drains.update({each.version: each.drain.timeout_s for each in leaving})
        return drains.keys() == {"v1", "v2"}

    await mesh.until(have_left)
    assert drains == {"v1": 20.0, "v2": 300.0}
    await mesh.until(lambda: len(mesh.loop.picture().observed.replicas) == 3)
    drains.clear()
    await mesh.roll_back()
    assert await fewest(lambda: int(not have_left()), for_s=30.0) == 1
    assert drains == {"v2": 300.0}, "also when it has ended"
    await mesh.crash()


def refusal(state: control_pb2.DesiredState, app: control_pb2.ApplicationSpec) -> str:
    from mesh.controller.desired.changes.desired_change import with_applications

    with pytest.raises(InvalidChangeError) as caught:
        with_applications(state, [app], 0.0)
    return str(caught.value)


def test_what_is_no_canary_is_refused_with_advice() -> None:
    app = application()
    app.traffic.CopyFrom(TEN_PERCENT)
    state = control_pb2.DesiredState()
    assert "Deploy it without traffic options first" in refusal(state, app)
    state.applications.add().CopyFrom(application())
    app.ingress = app.deployments[0].name = "Other"
    assert "both need the same one" in refusal(state, app)
    for edit in (
        functools.partial(with_promoted, name="app", unix_time_s=0.0),
        functools.partial(rolled_back, name="app", unix_time_s=0.0),
    ):
        with pytest.raises(InvalidChangeError):
            edit(state)
