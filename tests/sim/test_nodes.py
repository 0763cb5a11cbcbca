"""Nodes that join, leave, are drained and shrink, under the whole controller in fake time, by a seed."""

import asyncio
import functools
import math
from collections import Counter

import pytest

from mesh.controller.nodes.cordons import cordoned
from mesh.v1 import control_pb2
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.sim.odd_clusters import LateLists
from tests.sim.watched_cluster import WatchedCluster, app

SEEDS = range(60)
STEPS = 12


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_nodes_do_the_mesh_comes_to_what_was_asked(seed: int) -> None:
    """Nothing is left behind, and no node ever holds more replicas than it may."""
    cluster = WatchedCluster(seed, {"n0": 4.0, "n1": 2.0})
    mesh, dice = Mesh(seed, cluster=cluster), cluster.random
    await mesh.boot()
    size, per_node_max = dice.randint(2, 6), dice.choice([0, 0, 2])
    bundles = 0 if per_node_max else dice.choice([0, 0, 2])
    for step in range(STEPS):
        if dice.random() < 0.3:
            await mesh.run(lambda step=step: app(f"v{step}", size, per_node_max, bundles))
        await _something_happens(cluster, step)
        await asyncio.sleep(dice.uniform(0.0, 20.0))
    cluster.cpus.update({"large1": 20.0, "large2": 20.0, "large3": 20.0})
    await mesh.run(lambda: app("last", size, per_node_max, bundles))
    await mesh.until(lambda: is_running(mesh, "last", size), within_s=300.0)
    assert cluster.wrongs == []
    await mesh.until(lambda: len(cluster.groups) == (size if bundles else 0))
    await mesh.shut_down()
    await mesh.until(lambda: mesh.is_empty() and not cluster.actors)
    assert not cluster.groups
    assert not mesh.failed
    await mesh.crash()


async def _something_happens(cluster: FakeCluster, step: int) -> None:
    dice = cluster.random
    others = [node_id for node_id in cluster.cpus if node_id != cluster.head]
    match dice.randrange(5):
        case 0:
            cluster.cpus[f"added{step}"] = float(dice.randint(1, 4))
        case 1 if others:
            cluster.lose_node(dice.choice(others))
        case 2 if others:
            leaving = dice.choice(others)
            now_s = asyncio.get_running_loop().time()
            cluster.ends_at_s[leaving] = dice.choice([math.inf, now_s + dice.uniform(5.0, 60.0)])
        case 3 if cluster.ends_at_s:
            # Drained or not, its time is over; or the drain is called off.
            ended = next(iter(cluster.ends_at_s))
            if dice.random() < 0.5:
                cluster.lose_node(ended)
            else:
                del cluster.ends_at_s[ended]
        case _:
            shrunk = dice.choice(list(cluster.cpus))
            cluster.cpus[shrunk] = max(1.0, cluster.cpus[shrunk] - 1.0)


@pytest.mark.parametrize("seed", range(10))
async def test_a_drained_node_costs_nothing_where_there_is_room(seed: int) -> None:
    """At no moment do fewer replicas serve than are wanted (item 192)."""
    cluster = WatchedCluster(seed, {"head": 2.0, "n1": 2.0, "n2": 2.0})
    mesh = Mesh(seed, cluster=cluster)
    await mesh.boot()
    await mesh.run(lambda: app("v1", 4))
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    for leaving in ("n1", "n2"):
        cluster.cpus[f"{leaving}'"] = 2.0
        cluster.ends_at_s[leaving] = asyncio.get_running_loop().time() + 120.0
        await mesh.until(lambda leaving=leaving: not cluster.used(leaving) and is_running(mesh, "v1", 4))
        assert cluster.fewest >= 4
        cluster.lose_node(leaving)
    await mesh.crash()


async def test_an_update_without_room_is_as_fast_as_its_replicas() -> None:
    """No step waits for a timeout, and never are fewer up than the target less the surge (C17)."""
    cluster = WatchedCluster(7, {"head": 2.0, "n1": 3.0, "n2": 5.0})
    mesh = Mesh(7, cluster=cluster)
    await mesh.boot()
    await mesh.run(lambda: app("v1", 10))
    await mesh.until(lambda: is_running(mesh, "v1", 10))
    began_at_s = asyncio.get_running_loop().time()
    await mesh.run(lambda: app("v2", 10))
    await mesh.until(lambda: is_running(mesh, "v2", 10))
    # Five rounds of two, each a drain (2 s), a process (2 s) and a constructor (3 s) at the most.
    assert asyncio.get_running_loop().time() - began_at_s < 5 * 10.0
    assert cluster.fewest >= 8
    await mesh.crash()


async def test_an_update_that_finds_room_on_another_node_keeps_all_serving() -> None:
    cluster = WatchedCluster(3, {"head": 2.0, "n1": 3.0})
    mesh = Mesh(3, cluster=cluster)
    await mesh.boot()
    for version in ("v1", "v2", "v3", "v4"):
        await mesh.run(lambda version=version: app(version, 4))
        await mesh.until(lambda version=version: is_running(mesh, version, 4))
    assert cluster.fewest >= 4
    await mesh.crash()


async def test_replicas_are_spread_again_over_nodes_that_came_later() -> None:
    """Scaling down empties the emptiest node first (items 191, 193)."""
    cluster = WatchedCluster(5, {"head": 8.0})
    mesh = Mesh(5, cluster=cluster)
    await mesh.boot()
    await mesh.run(lambda: app("v1", 4))
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    cluster.cpus.update({"n1": 8.0, "n2": 8.0})
    await asyncio.sleep(2.0)
    await mesh.run(lambda: app("v1", 12))
    await mesh.until(lambda: is_running(mesh, "v1", 12))
    assert Counter(actor.node_id for actor in cluster.replicas()) == {"head": 4, "n1": 4, "n2": 4}
    await mesh.run(lambda: app("v1", 8))
    await mesh.until(lambda: is_running(mesh, "v1", 8))
    there = Counter(actor.node_id for actor in cluster.replicas())
    assert there["head"] == 4
    assert sorted((there["n1"], there["n2"])) == [0, 4]
    await mesh.crash()


@pytest.mark.parametrize("per_node_max", [0, 1])
async def test_a_node_that_joins_is_used_at_once_while_replicas_wait(per_node_max: int) -> None:
    """In calm times the nodes are looked at less often; to wait for room is not calm."""
    cluster = WatchedCluster(1, {"n0": 1.0})
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.run(lambda: app("v1", 1, per_node_max))
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    for count in range(2, 12):
        await mesh.run(lambda count=count: app("v1", count, per_node_max))
        await asyncio.sleep(cluster.random.uniform(5.0, 8.0))
        assert len(cluster.serving()) == count - 1
        cluster.cpus[f"n{count}"] = 1.0
        # A look at the nodes every second, and the start: a message of 0.2 s before the process is there.
        await asyncio.sleep(1.5)
        assert cluster.used(f"n{count}") == 1.0
        await mesh.until(lambda count=count: is_running(mesh, "v1", count))
    await mesh.crash()


async def test_a_new_controller_starts_nothing_on_a_cordoned_node_while_it_does_not_know_the_nodes() -> None:
    cluster = LateLists()
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.run(lambda: app("v1", 4))
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    await mesh.ask(lambda: (functools.partial(cordoned, cordon=control_pb2.Cordon(node_id="n1")), ()))
    await mesh.crash()
    for actor in cluster.replicas():
        cluster.end(actor)
    cluster.cpus["head"], cluster.delay_s = 2.0, 4.0
    await mesh.boot()
    await mesh.until(lambda: len(cluster.serving()) == 2)
    await asyncio.sleep(30.0)
    assert {actor.node_id for actor in cluster.replicas() if actor.is_placed.is_set()} == {"head"}
    await mesh.crash()
