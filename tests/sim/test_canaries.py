"""A canary runs beside its application, whatever happens to that, until it is promoted or ended, in fake time.

A test runs the coroutine that follows it; what is asserted stands there.
"""

import asyncio
import functools

import pytest

from mesh.controller.desired.desired_change import InvalidChangeError, rolled_back, scaled, with_promoted
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.sim.goals import is_running
from tests.sim.test_late_crashes import fewest
from tests.sim.test_rollback import roll_back
from tests.unit.controller.builders import KEY, application

TEN_PERCENT = control_pb2.TrafficRule(percent=10.0)


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


async def promote(mesh: Mesh) -> None:
    await mesh._ask(lambda: (functools.partial(with_promoted, name="app", unix_time_s=0.0), ()))


def counts(mesh: Mesh) -> dict[str, int]:
    found: dict[str, int] = {}
    for actor in mesh.cluster.serving():
        found[actor.spec.spec.version] = found.get(actor.spec.spec.version, 0) + 1
    return found


def told(mesh: Mesh) -> tuple[str, float, dict[str, int]]:
    """The canary's version and share, and how many replicas of each version callers know."""
    snapshot = mesh.publisher._snapshots[KEY].newest
    versions = [each.version for each in snapshot.replicas]
    return snapshot.canary_version, snapshot.traffic.percent, {each: versions.count(each) for each in set(versions)}


def test_a_canary_outlives_restarts_deploys_and_scaling_and_is_promoted_without_a_gap() -> None:
    """The version beside it keeps its number all the time."""
    run_in_fake_time(_live())


async def _live() -> None:
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
    await mesh._ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=25), ()))
    await mesh.until(lambda: counts(mesh) == {"v3": 25, "v2": 3})
    canaries = {actor.name for actor in mesh.cluster.serving("v2")}
    await promote(mesh)
    assert await fewest(lambda: sum(counts(mesh).values()), for_s=20.0) >= 15
    await mesh.until(lambda: is_running(mesh, "v2", 15))
    assert canaries <= {actor.name for actor in mesh.cluster.serving("v2")}, "its replicas stay"
    assert told(mesh)[:2] == ("", 0.0)
    await mesh.until(lambda: not mesh.stored().predecessors)
    await roll_back(mesh)
    await mesh.until(lambda: is_running(mesh, "v3", 25))
    await mesh.crash()


def test_a_rollback_ends_the_canary_and_nothing_else() -> None:
    run_in_fake_time(_end())


async def _end() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    olds = {actor.name for actor in mesh.cluster.serving("v1")}
    await deploy_canary(mesh, "v2", 3, control_pb2.TrafficRule(header="x-canary"))
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v2": 1})
    await roll_back(mesh)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    assert {actor.name for actor in mesh.cluster.serving("v1")} == olds
    assert not mesh.stored().canaries
    await mesh.crash()


def test_a_canary_that_cannot_start_takes_nothing_and_says_why() -> None:
    """The application is as it was, and the canary is given up."""
    run_in_fake_time(_fail())


async def _fail() -> None:
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


def test_a_canary_may_differ_in_its_user_config_only() -> None:
    """Promoted and deployed again it keeps its replicas."""
    run_in_fake_time(_configure())


async def _configure() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3, user_config_json="1")
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await deploy_canary(mesh, "v1", 3, config="2")
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v1+config": 1})
    await promote(mesh)
    await mesh.until(lambda: is_running(mesh, "v1+config", 3))
    there = set(mesh.cluster.actors)
    await mesh.deploy("v1", 3, user_config_json="2")
    await asyncio.sleep(60.0)
    assert is_running(mesh, "v1+config", 3)
    assert set(mesh.cluster.actors) == there
    await mesh.crash()


def test_a_deploy_of_the_canary_s_version_ends_it_as_a_promotion_does() -> None:
    run_in_fake_time(_deploy())


async def _deploy() -> None:
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


def refusal(state: control_pb2.DesiredState, app: control_pb2.ApplicationSpec) -> str:
    from mesh.controller.desired.desired_change import with_applications

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
