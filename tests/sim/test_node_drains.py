"""Nodes that operators cordon and drain, under the whole controller in fake time, by a seed."""

import asyncio
import math

import pytest

from mesh.status import ApplicationStatus, NodeStatus
from mesh.v1 import control_pb2
from tests.sim.cordons import cordon, drain, is_drained, nodes_of, started, status, uncordon
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.sim.watched_cluster import WatchedCluster, app

SEEDS = range(12)
STORMS = range(60)


def assert_never_fewer(cluster: WatchedCluster, number: int) -> None:
    assert cluster.fewest >= number
    assert cluster.wrongs == []


# ---- cordons --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_new_replica_starts_on_a_cordoned_node(seed: int) -> None:
    """Not even under the next controller, nor when Ray has to choose the node. What runs there stays."""
    mesh, cluster = await started(seed, {"head": 2.0, "n1": 4.0, "n2": 4.0}, 4)
    there = {actor.name for actor in cluster.replicas() if actor.node_id == "n1"}
    await cordon(mesh, "n1")
    await mesh.crash()
    await mesh.boot()
    await mesh.run(lambda: app("v1", 10))
    room = 6 + len(there)
    await mesh.until(lambda: len(cluster.serving()) == room)
    await asyncio.sleep(60.0)
    assert {actor.name for actor in cluster.replicas() if actor.node_id == "n1"} == there
    assert status(mesh, "n1").status == NodeStatus.CORDONED
    # Those that wait in Ray's queue for another node come here when they may.
    await uncordon(mesh, "n1")
    await mesh.until(lambda: is_running(mesh, "v1", 10))
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_replica_that_waits_in_the_queue_of_ray_avoids_a_node_cordoned_since(seed: int) -> None:
    mesh, cluster = await started(seed, {"head": 1.0, "n1": 1.0, "n2": 1.0}, 3)
    await mesh.run(lambda: app("v1", 4))
    await asyncio.sleep(40.0)
    await cordon(mesh, "n1")
    await asyncio.sleep(5.0)
    cluster.cpus["n1"] = 3.0
    await asyncio.sleep(30.0)
    assert nodes_of(cluster)["n1"] == 1
    cluster.cpus["n2"] = 2.0
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    assert nodes_of(cluster) == {"head": 1, "n1": 1, "n2": 2}
    await mesh.crash()


async def test_a_cordon_is_forgotten_when_its_node_has_been_gone_for_an_hour() -> None:
    mesh, cluster = await started(1, {"head": 4.0, "n1": 4.0}, 2)
    await cordon(mesh, "n1")
    cluster.lose_node("n1")
    await asyncio.sleep(3000.0)
    assert [each.node_id for each in mesh.stored().cordons] == ["n1"]
    await asyncio.sleep(700.0)
    assert not mesh.stored().cordons
    await mesh.crash()


# ---- drains --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_drain_moves_all_replicas_and_then_the_gateway(seed: int) -> None:
    """Others serve before one stops, so that never fewer serve than are wanted; the progress says how far it is."""
    mesh, cluster = await started(seed, {"head": 8.0, "n1": 8.0, "n2": 8.0}, 12)
    assert nodes_of(cluster)["n1"] == 4
    await drain(mesh, "n1")
    progress = [status(mesh, "n1")]
    while not is_drained(mesh, "n1"):
        await asyncio.sleep(0.2)
        if (now := status(mesh, "n1")) != progress[-1]:
            progress.append(now)
        if nodes_of(cluster)["n1"]:
            # Its clients are served as long as there are replicas.
            assert any("n1" in name for name in gateways(cluster))
    await mesh.until(lambda: is_running(mesh, "v1", 12))
    assert_never_fewer(cluster, 12)
    moved = [each.moved_replicas for each in progress]
    assert moved == sorted(moved)
    assert (moved[0], moved[-1], progress[-1].replicas_to_move) == (0, 4, 4)
    assert not any("n1" in name for name in gateways(cluster))
    assert not any(each.message for each in progress)
    await mesh.crash()


def gateways(cluster: WatchedCluster) -> list[str]:
    return [actor.name for actor in cluster.actors.values() if isinstance(actor.spec, control_pb2.GatewaySpec)]


async def test_a_drain_starts_as_many_replacements_at_a_time_as_the_surge_allows() -> None:
    cluster = WatchedCluster(3, {"head": 5.0, "n1": 5.0})
    mesh = Mesh(3, cluster=cluster)
    await mesh.boot()

    def wanted() -> control_pb2.ApplicationSpec:
        spec = app("v1", 10)
        spec.deployments[0].options.max_surge_percent = 10
        return spec

    await mesh.run(wanted)
    await mesh.until(lambda: is_running(mesh, "v1", 10))
    cluster.cpus["n2"] = 20.0
    await drain(mesh, "n1")
    most = 0
    while not is_drained(mesh, "n1"):
        await asyncio.sleep(0.05)
        most = max(most, sum(not actor.is_draining for actor in cluster.replicas()))
    assert most == 11
    assert_never_fewer(cluster, 10)
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_drain_without_room_takes_nothing_away_and_says_why(seed: int) -> None:
    """It goes on when there is room, under whichever controller."""
    mesh, cluster = await started(seed, {"head": 2.0, "n1": 2.0, "n2": 2.0}, 6)
    await drain(mesh, "n1")
    await mesh.until(lambda: "wait for room" in status(mesh, "n1").message)
    assert "2 nodes take replicas" in status(mesh, "n1").message
    await asyncio.sleep(60.0)
    assert len(cluster.serving()) == 6
    assert nodes_of(cluster)["n1"] == 2
    if seed % 2:
        await mesh.crash()
        await mesh.boot()
    cluster.cpus["n3"] = 2.0
    await mesh.until(lambda: is_drained(mesh, "n1") and is_running(mesh, "v1", 6))
    assert_never_fewer(cluster, 6)
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_drain_that_is_called_off_leaves_the_replicas_where_they_are(seed: int) -> None:
    mesh, cluster = await started(seed, {"head": 2.0, "n1": 2.0, "n2": 2.0}, 6)
    before = {actor.name for actor in cluster.replicas()}
    await drain(mesh, "n1")
    await asyncio.sleep(40.0)
    await uncordon(mesh, "n1")
    assert mesh.app_status() == ApplicationStatus.RUNNING
    await mesh.until(lambda: is_running(mesh, "v1", 6))
    assert {actor.name for actor in cluster.replicas()} == before
    assert status(mesh, "n1").status == NodeStatus.READY
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_two_nodes_may_be_drained_at_once(seed: int) -> None:
    """That is more than a third of the nodes: nothing is lost, because others serve first."""
    mesh, cluster = await started(seed, {"head": 9.0, "n1": 3.0, "n2": 3.0}, 9)
    await drain(mesh, "n1")
    await drain(mesh, "n2")
    await mesh.until(lambda: is_drained(mesh, "n1", "n2") and is_running(mesh, "v1", 9))
    assert nodes_of(cluster) == {"head": 9}
    assert_never_fewer(cluster, 9)
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_drain_during_a_rollout_costs_no_more_than_the_rollout(seed: int) -> None:
    mesh, cluster = await started(seed, {"head": 8.0, "n1": 4.0, "n2": 8.0}, 9)
    await mesh.run(lambda: app("v2", 9))
    await asyncio.sleep(cluster.random.uniform(0.0, 15.0))
    await drain(mesh, "n1")
    await mesh.until(lambda: is_drained(mesh, "n1") and is_running(mesh, "v2", 9))
    assert_never_fewer(cluster, 9)
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_rollout_that_has_failed_does_not_keep_a_node_from_being_drained(seed: int) -> None:
    """Replicas of the version before move."""
    mesh, cluster = await started(seed, {"head": 6.0, "n1": 6.0, "n2": 6.0}, 6)
    await asyncio.sleep(30.0)
    cluster.broken_versions.add("v2")
    await mesh.run(lambda: app("v2", 6))
    await mesh.until(lambda: mesh.app_status() == "DEPLOY_FAILED")
    await drain(mesh, "n1")
    await mesh.until(lambda: is_drained(mesh, "n1") and len(cluster.serving("v1")) == 6)
    assert_never_fewer(cluster, 6)
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_canary_moves_with_the_version_beside_it(seed: int) -> None:
    mesh, cluster = await started(seed, {"head": 8.0, "n1": 8.0, "n2": 8.0}, 6)

    def canary() -> control_pb2.ApplicationSpec:
        spec = app("v2", 6)
        spec.traffic.percent = 50.0
        return spec

    await mesh.run(canary)
    await mesh.until(lambda: len(cluster.serving("v2")) == 3)
    await drain(mesh, "n1")
    await mesh.until(lambda: is_drained(mesh, "n1"))
    await mesh.until(lambda: (len(cluster.serving("v1")), len(cluster.serving("v2"))) == (6, 3))
    assert nodes_of(cluster)["n1"] == 0
    assert_never_fewer(cluster, 9)
    await mesh.crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_node_that_dies_while_another_is_drained_holds_the_drain_up(seed: int) -> None:
    """What is lost counts: no replica stops before as many serve as are wanted, and one more."""
    mesh, cluster = await started(seed, {"head": 3.0, "n1": 3.0, "n2": 3.0}, 9)
    await drain(mesh, "n1")
    await asyncio.sleep(cluster.random.uniform(0.0, 10.0))
    cluster.lose_node("n2")
    await asyncio.sleep(60.0)
    # Six are left, three of them on the node that is being drained; nowhere is there room for others.
    assert len(cluster.serving()) == 6
    cluster.cpus.update({"n3": 6.0})
    await mesh.until(lambda: is_drained(mesh, "n1") and is_running(mesh, "v1", 9))
    assert_never_fewer(cluster, 9)
    await mesh.crash()


async def test_the_head_loses_its_replicas_and_keeps_its_gateway() -> None:
    mesh, cluster = await started(2, {"head": 4.0, "n1": 8.0}, 4)
    await drain(mesh, "head")
    await mesh.until(lambda: is_drained(mesh, "head") and is_running(mesh, "v1", 4))
    assert nodes_of(cluster) == {"n1": 4}
    await asyncio.sleep(60.0)
    assert any("head" in name for name in gateways(cluster))
    await mesh.crash()


# ---- storms --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", STORMS)
async def test_whatever_is_drained_and_lost_the_mesh_comes_to_what_was_asked(seed: int) -> None:
    """With updates, nodes that die, join and are drained by Ray, and controllers that die, all at once."""
    cluster = WatchedCluster(seed, {"head": 6.0, "n1": 4.0, "n2": 4.0, "n3": 4.0})
    mesh, dice = Mesh(seed, cluster=cluster), cluster.random
    await mesh.boot()
    size, version = dice.randint(2, 8), "v0"
    per_node_max = dice.choice([0, 0, 3])
    for step in range(12):
        others = [node_id for node_id in cluster.cpus if node_id != "head"]
        match dice.randrange(8):
            case 0 | 1 if others:
                await drain(mesh, dice.choice(list(cluster.cpus)))
            case 2:
                await cordon(mesh, dice.choice(list(cluster.cpus)))
            case 3 if mesh.stored().cordons:
                await uncordon(mesh, dice.choice(mesh.stored().cordons).node_id)
            case 4 if len(others) > 1:
                cluster.lose_node(dice.choice(others))
            case 5 if others:
                now_s = asyncio.get_running_loop().time()
                cluster.ends_at_s[dice.choice(others)] = dice.choice([math.inf, now_s + dice.uniform(5.0, 60.0)])
            case 6:
                await mesh.crash()
                await mesh.boot()
            case _:
                version = f"v{step}"
                await mesh.run(lambda version=version: app(version, size, per_node_max))
        cluster.cpus.setdefault(f"added{step}", 2.0)
        await asyncio.sleep(dice.uniform(0.0, 20.0))
    cluster.cpus.update({f"large{number}": 20.0 for number in range(3)})
    await mesh.run(lambda: app(version, size, per_node_max))
    await mesh.until(lambda: is_running(mesh, version, size), within_s=400.0)
    drained = [each.node_id for each in mesh.stored().cordons if each.is_draining and each.node_id in cluster.cpus]
    await mesh.until(lambda: not any(nodes_of(cluster)[each] for each in drained))
    assert cluster.wrongs == []
    assert not mesh.failed
    await mesh.crash()
