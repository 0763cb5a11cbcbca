"""Gateways of which one drains, while others get other options or take its place, in fake time."""

import asyncio
import functools

import pytest

from mesh.controller.desired.changes.gateway_generations import with_gateways
from mesh.controller.report.publisher import Publisher
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2
from tests.sim.cordons import drain, uncordon
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running

NODES = {"n1": 8.0, "n2": 8.0, "n3": 8.0}
PORTS = (8000, 8001, 8002)


def _options(http_port: int) -> control_pb2.GatewayOptions:
    return control_pb2.GatewayOptions(grpc_port=9000, processes=1, http_port=http_port)


async def _configure(mesh: Mesh, http_port: int) -> None:
    expected = mesh.loop.status().gateway_options
    edit = functools.partial(with_gateways, options=_options(http_port), expected=expected)
    await mesh.ask(lambda: (edit, ()))


def _revisions(mesh: Mesh) -> dict[str, list[int]]:
    """Of the gateways that serve, by node."""
    found: dict[str, list[int]] = {}
    for each in mesh.loop.status().gateways:
        if each.status == GatewayStatus.HEALTHY:
            found.setdefault(each.node_id, []).append(each.revision)
    return found


def _all(revision: int) -> dict[str, list[int]]:
    return {node_id: [revision] for node_id in NODES}


async def _started(seed: int) -> Mesh:
    mesh = Mesh(seed, cpus=NODES, gateways=_options(PORTS[0]))
    await mesh.boot()
    await mesh.deploy("v1", 4)
    await mesh.until(lambda: len(mesh.cluster.serving("v1")) == 4 and _revisions(mesh) == _all(0))
    return mesh


async def _seen_until(mesh: Mesh, wanted: dict[str, list[int]]) -> list[dict[str, list[int]]]:
    """What served meanwhile."""
    seen = [_revisions(mesh)]
    while seen[-1] != wanted or mesh.stored().HasField("gateways_before"):
        await asyncio.sleep(0.1)
        seen.append(_revisions(mesh))
        assert len(seen) < 3000, seen[-1]
    return seen


@pytest.mark.parametrize("pause_s", [0.0, 0.3, 1.0, 2.0, 4.0, 8.0])
async def test_options_change_on_the_other_nodes_while_a_node_is_drained(pause_s: float) -> None:
    """And the node has them when it is taken back (items 52, 192)."""
    mesh = await _started(seed=1)
    await drain(mesh, "n2")
    await asyncio.sleep(pause_s)
    await _configure(mesh, PORTS[1])
    seen = await _seen_until(mesh, {"n1": [1], "n3": [1]})
    assert all(each.keys() >= {"n1", "n3"} for each in seen), "both have a gateway that serves, all the time"
    await uncordon(mesh, "n2")
    await mesh.deploy("v1", 24)
    await _seen_until(mesh, _all(1))
    assert not mesh.failed
    await mesh.crash()


@pytest.mark.parametrize("pause_s", range(0, 24, 2))
async def test_options_change_again_while_a_gateway_with_the_ones_before_drains(pause_s: float) -> None:
    """Whatever the gateways do at that moment, each node has one that serves, and the last options are those of all."""
    mesh = await _started(seed=1)
    mesh.cluster.faults.hang_in_drain = 0.5
    await _configure(mesh, PORTS[1])
    await asyncio.sleep(pause_s)
    await _configure(mesh, PORTS[2])
    revision = mesh.loop.status().gateways_revision
    seen = await _seen_until(mesh, _all(revision))
    assert all(each.keys() == NODES.keys() for each in seen), "each has a gateway that serves, all the time"
    gateways = [each.spec for each in mesh.cluster.actors.values() if isinstance(each.spec, control_pb2.GatewaySpec)]
    assert {each.options.http_port for each in gateways if each.revision == revision} == {PORTS[2]}
    assert not mesh.failed
    await mesh.crash()


class Held(Publisher):
    """Its subscribers hear of nothing before they may."""

    def __init__(self, first_version: int) -> None:
        super().__init__(first_version)
        self.may_flush = asyncio.Event()
        self.may_flush.set()

    async def flush(self) -> None:
        await self.may_flush.wait()


async def test_a_drain_that_begins_when_its_gateway_has_ended_leaves_the_next_one_of_that_name_alone() -> None:
    cluster = FakeCluster(1, cpus={"head": 0.0, "n2": 10.0})
    mesh = Mesh(1, cluster=cluster, make_publisher=Held)
    await mesh.boot()
    publisher = mesh.publisher
    assert isinstance(publisher, Held)
    await mesh.deploy("v1", 1, actor=control_pb2.ActorOptions(num_cpus=1))
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    await mesh.delete()
    await mesh.until(lambda: mesh.is_without_applications() and not cluster.replicas())
    publisher.may_flush.clear()
    await mesh.until(lambda: _status_on(mesh, "n2") == [GatewayStatus.DRAINING])
    cluster.end(cluster.actors["MESH_GATEWAY::n2"])
    await mesh.deploy("v1", 1, actor=control_pb2.ActorOptions(num_cpus=1))
    await mesh.until(lambda: is_running(mesh, "v1", 1) and _status_on(mesh, "n2") == [GatewayStatus.HEALTHY])
    following = cluster.actors["MESH_GATEWAY::n2"]
    publisher.may_flush.set()
    await asyncio.sleep(10.0)
    assert (following.is_draining, following.closed.is_set()) == (False, False)
    assert not mesh.failed
    await mesh.crash()


def _status_on(mesh: Mesh, node_id: str) -> list[str]:
    return [each.status for each in mesh.loop.status().gateways if each.node_id == node_id]
