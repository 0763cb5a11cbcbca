"""The disruption limit under the whole controller in fake time: what is lost counts, whatever it is lost to."""

import asyncio
import functools
import math
from dataclasses import replace

import pytest

from mesh.controller.desired.changes.desired_change import with_pause
from mesh.v1 import control_pb2
from tests.sim.cordons import drain, is_drained
from tests.sim.fake_actor import Faults
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.sim.watched_cluster import WatchedCluster, app

SEEDS = range(8)


def wanted(version: str, max_unavailable_percent: float | None = None) -> control_pb2.ApplicationSpec:
    """Nine replicas."""
    spec = app(version, 9)
    if max_unavailable_percent is not None:
        spec.deployments[0].options.max_unavailable_percent = max_unavailable_percent
    return spec


async def running(seed: int, max_unavailable_percent: float | None = None) -> tuple[Mesh, WatchedCluster]:
    """Three of nine replicas on each of three nodes, which have no room for more."""
    cluster = WatchedCluster(seed, {"head": 3.0, "n1": 3.0, "n2": 3.0})
    mesh = Mesh(seed, cluster=cluster)
    await mesh.boot()
    await mesh.run(lambda: wanted("v1", max_unavailable_percent))
    await mesh.until(lambda: is_running(mesh, "v1", 9))
    return mesh, cluster


@pytest.mark.parametrize("seed", SEEDS)
async def test_replicas_that_are_slow_because_a_node_was_lost_are_not_ended(seed: int) -> None:
    """Of nine a third is lost: those that are left serve on however their health checks end, and the status says so."""
    mesh, cluster = await running(seed)
    survivors = {actor.name for actor in cluster.replicas() if actor.node_id != "n2"}
    cluster.lose_node("n2")
    cluster.faults = Faults(sick=1.0)
    for _ in range(60):
        await asyncio.sleep(5.0)
        assert {actor.name for actor in cluster.serving()} == survivors
    (application,) = mesh.loop.status().applications
    assert "6 replicas fail their health checks and serve on" in application.deployments[0].message
    cluster.faults = Faults()
    cluster.cpus["n3"] = 3.0
    await mesh.until(lambda: is_running(mesh, "v1", 9))
    assert {actor.name for actor in cluster.serving()} >= survivors
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_update_takes_nothing_more_away_than_its_limit_less_what_is_lost(seed: int) -> None:
    """With a third that may be away, a node is lost at a random moment of the update, and comes back later."""
    mesh, cluster = await running(seed, max_unavailable_percent=34.0)
    await mesh.run(lambda: wanted("v2", max_unavailable_percent=34.0))
    await asyncio.sleep(cluster.random.uniform(0.0, 20.0))
    cluster.lose_node("n2")
    await asyncio.sleep(60.0)
    cluster.cpus["n3"] = 3.0
    await mesh.until(lambda: is_running(mesh, "v2", 9))
    # Of those that serve when one is drained, that one is left out.
    assert cluster.fewest >= 6
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_failing_health_checks_take_no_more_away_than_the_deployment_allows(seed: int) -> None:
    """One of nine at a time, instead of three."""
    mesh, cluster = await running(seed, max_unavailable_percent=12.0)
    cluster.faults = replace(cluster.faults, sick=1.0)
    ended = 0
    known = {actor.name for actor in cluster.replicas()}
    for _ in range(600):
        await asyncio.sleep(0.5)
        assert len(cluster.serving()) >= 8
        ended = len(known - {actor.name for actor in cluster.replicas()})
    assert ended > 1, "each gets its turn"
    cluster.faults = Faults()
    await mesh.until(lambda: is_running(mesh, "v1", 9))
    await mesh.crash()


@pytest.mark.parametrize("update", ["", "paused", "failed"])
async def test_a_node_is_drained_also_where_updates_start_no_replica_before_one_stops(update: str) -> None:
    """One replica more starts at a time then, so that no fewer serve. So does the version before of an update that
    stands still."""
    cluster = WatchedCluster(1, {"head": 8.0, "n1": 8.0, "n2": 8.0})
    cluster.broken_versions = {"v2"}
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.run(lambda: without_surge("v1"))
    await mesh.until(lambda: is_running(mesh, "v1", 6))
    serving = 6
    if update == "paused":
        pause = functools.partial(with_pause, application="app", deployment="", is_paused=True)
        await mesh.ask(lambda: (pause, ()))
    if update:
        await mesh.run(lambda: without_surge("v2"))
        await asyncio.sleep(60.0)
        serving = len(cluster.serving("v1"))
    cluster.fewest = math.inf
    await drain(mesh, "n1")
    await mesh.until(lambda: is_drained(mesh, "n1"))
    assert cluster.fewest >= serving
    await mesh.crash()


def without_surge(version: str) -> control_pb2.ApplicationSpec:
    """Six replicas, of which an update stops three before it starts any."""
    spec = app(version, 6)
    spec.deployments[0].options.max_surge_percent = 0.0
    spec.deployments[0].options.max_unavailable_percent = 50.0
    return spec


async def test_a_node_is_drained_while_a_new_configuration_is_held_back() -> None:
    """Those that replace the others have the configuration before, like them."""
    mesh, cluster = await running(seed=1)
    cluster.cpus["n2"] = 6.0
    pause = functools.partial(with_pause, application="app", deployment="", is_paused=True)
    await mesh.ask(lambda: (pause, ()))
    await mesh.run(lambda: configured("[2]"))
    await drain(mesh, "n1")
    await mesh.until(lambda: is_drained(mesh, "n1"))
    assert cluster.fewest >= 9
    assert {actor.spec.spec.options.user_config_json for actor in cluster.serving()} == {""}
    await mesh.crash()


def configured(user_config_json: str) -> control_pb2.ApplicationSpec:
    spec = wanted("v1")
    spec.deployments[0].options.user_config_json = user_config_json
    return spec
