"""Gateways that do not come up, and gateways that get other options, in fake time."""

import asyncio
import contextlib
import random

import pytest

from mesh.controller.desired.changes.gateway_generations import with_gateways
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.store.desired_store import StoreError
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor, Faults
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.odd_clusters import LateLists

LIMIT_S = 120.0


class Hanging(FakeCluster):
    """The first gateway hangs in its start."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.started: list[Actor] = []

    async def _start(self, actor: Actor) -> bytes:
        if isinstance(actor.spec, control_pb2.GatewaySpec):
            self.started.append(actor)
            if len(self.started) == 1:
                await asyncio.Event().wait()
        return await super()._start(actor)


async def test_a_gateway_that_hangs_in_its_start_is_replaced_when_its_time_is_over() -> None:
    mesh = Mesh(1, cluster=(cluster := Hanging()))
    await mesh.boot()
    await asyncio.sleep(LIMIT_S - 5.0)
    assert [each.status for each in mesh.loop.status().gateways] == [GatewayStatus.STARTING]
    assert len(cluster.started) == 1
    await mesh.until(lambda: "did not start within 120 s" in mesh.loop.status().gateways[0].message, within_s=10.0)
    await mesh.until(lambda: [each.status for each in mesh.loop.status().gateways] == [GatewayStatus.HEALTHY], 10.0)
    assert len(cluster.started) == 2
    assert cluster.started[0].closed.is_set()
    assert mesh.loop.status().gateways[0].message == ""
    assert not mesh.failed
    await mesh.crash()


class WaitForRoutes(FakeCluster):
    """Gateways wait in their start for what a controller that serves tells them."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.are_routes_there = asyncio.Event()

    async def _start(self, actor: Actor) -> bytes:
        if isinstance(actor.spec, control_pb2.GatewaySpec):
            await self.are_routes_there.wait()
        return await super()._start(actor)


async def test_a_controller_does_not_wait_for_a_gateway_that_waits_for_it() -> None:
    """It adopts one that starts, under its name, and serves at once."""
    mesh = Mesh(1, cluster=(cluster := WaitForRoutes()))
    await mesh.boot()
    await mesh.until(lambda: len(cluster.actors) == 1)
    before = _ids(mesh)
    await mesh.crash()
    async with asyncio.timeout(5.0):
        await mesh.boot()
    assert [each.status for each in mesh.loop.status().gateways] == [GatewayStatus.STARTING]
    cluster.are_routes_there.set()
    await mesh.until(lambda: _healthy(mesh) == [0], 10.0)
    assert _ids(mesh) == before
    assert not mesh.failed
    await mesh.crash()


async def test_gateways_of_one_node_are_replaced_and_adopted_one_by_one() -> None:
    mesh = Mesh(1, gateway_processes=3)
    await mesh.boot()
    await mesh.until(lambda: _healthy(mesh) == [0, 1, 2], 10.0)
    before = _ids(mesh)
    mesh.cluster.end(mesh.cluster.actors["MESH_GATEWAY::n1#1"])
    await mesh.until(lambda: _healthy(mesh) == [0, 1, 2] and _ids(mesh) != before, 10.0)
    after = _ids(mesh)
    assert (after[0], after[2]) == (before[0], before[2])
    await mesh.crash()
    await mesh.boot()
    await mesh.until(lambda: _healthy(mesh) == [0, 1, 2], 10.0)
    assert _ids(mesh) == after
    assert not mesh.failed
    await mesh.crash()


def _healthy(mesh: Mesh) -> list[int]:
    return sorted(each.index for each in mesh.loop.status().gateways if each.status == GatewayStatus.HEALTHY)


def _ids(mesh: Mesh) -> dict[int, str]:
    return {each.index: each.gateway_id for each in mesh.loop.status().gateways}


async def test_a_new_controller_stops_no_gateway_because_it_does_not_know_the_nodes_yet() -> None:
    """Ray answers slowly when much has failed, and then nothing else must be taken away."""
    mesh = Mesh(1, cluster=(cluster := LateLists()))
    await mesh.boot()
    await mesh.deploy("v1", 4, max_replicas_per_node=2)
    await mesh.until(lambda: len(_gateways(mesh)) == 2)
    before = _gateways(mesh)
    for cluster.delay_s, cluster.lacks in ((4.0, ""), (0.0, "n1")):
        await mesh.crash()
        await mesh.boot()
        await asyncio.sleep(5.0)
        assert _gateways(mesh) == before
    # It ends with its node.
    cluster.lose_node("n1")
    await mesh.until(lambda: [each.node_id for each in mesh.loop.status().gateways] == ["head"], 60.0)
    assert not mesh.failed
    await mesh.crash()


def _gateways(mesh: Mesh) -> set[str]:
    """That serve."""
    return {each.gateway_id for each in mesh.loop.status().gateways if each.status == GatewayStatus.HEALTHY}


OLD, NEW = (control_pb2.GatewayOptions(grpc_port=9000, processes=1, http_port=port) for port in (8000, 8001))
THREE_NODES = {"n1": 8.0, "n2": 8.0, "n3": 8.0}


async def _three_nodes() -> Mesh:
    """With a gateway on each."""
    mesh = Mesh(1, cpus=THREE_NODES, gateways=OLD)
    await mesh.boot()
    await mesh.deploy("v1", 9, max_replicas_per_node=3)
    await mesh.until(lambda: _revisions(mesh) == {"n1": [0], "n2": [0], "n3": [0]}, 60.0)
    return mesh


async def test_options_of_gateways_change_one_node_at_a_time() -> None:
    mesh = await _three_nodes()
    await _configure(mesh, NEW)
    seen: list[dict[str, list[int]]] = []
    while not seen or seen[-1] != {"n1": [1], "n2": [1], "n3": [1]}:
        seen.append(_revisions(mesh))
        assert len(seen) < 1000
        await asyncio.sleep(0.1)
    assert all(each.keys() == THREE_NODES.keys() for each in seen), "every node has a gateway that serves, all the time"
    assert all(sum(len(found) == 2 for found in each.values()) <= 1 for each in seen)
    await mesh.until(lambda: not mesh.stored().HasField("gateways_before"), 10.0)
    specs = [each.spec for each in mesh.cluster.actors.values() if isinstance(each.spec, control_pb2.GatewaySpec)]
    assert {each.takes_over for each in specs if each.revision} == {
        f"/ports/of/MESH_GATEWAY::{node}" for node in THREE_NODES
    }
    assert not mesh.failed
    await mesh.crash()


async def test_options_that_no_gateway_can_start_with_stop_at_the_first_node_and_can_be_taken_back() -> None:
    mesh = await _three_nodes()
    before = {each.gateway_id for each in mesh.loop.status().gateways}
    mesh.cluster.taken_ports = {8001}
    await _configure(mesh, NEW)
    await mesh.until(lambda: "cannot listen on :8001" in _messages(mesh), 30.0)
    await asyncio.sleep(300)
    assert _revisions(mesh) == {"n1": [0], "n2": [0], "n3": [0]}
    assert {each.node_id for each in mesh.loop.status().gateways if each.revision} == {"n1"}
    mesh.cluster.end(mesh.cluster.actors["MESH_GATEWAY::n2"])
    await mesh.until(lambda: _revisions(mesh).get("n2") == [0], 30.0)
    await mesh.crash()
    await mesh.boot()
    await mesh.until(lambda: "cannot listen on :8001" in _messages(mesh), 30.0)
    await _configure(mesh, OLD)
    await mesh.until(lambda: _revisions(mesh) == {"n1": [0], "n2": [0], "n3": [0]} and not _messages(mesh), 60.0)
    assert len(before & {each.gateway_id for each in mesh.loop.status().gateways}) == 2
    assert not mesh.failed
    await mesh.crash()


@pytest.mark.parametrize("wrong", [[], [8001], [8001, 8002]], ids=["at once", "at the second try", "at the third try"])
async def test_options_with_which_no_gateway_has_ever_started_can_be_corrected(wrong: list[int]) -> None:
    """A `mesh.start` that failed says to choose another port (items 52, 57)."""
    mesh = Mesh(1, cpus={"n1": 8.0}, gateways=OLD)
    mesh.cluster.taken_ports = {8000, 8001, 8002}
    await mesh.boot()
    await mesh.until(lambda: "cannot listen on :8000" in _messages(mesh), 30.0)
    await asyncio.sleep(20)
    for port in wrong:
        await _configure(mesh, control_pb2.GatewayOptions(grpc_port=9000, processes=1, http_port=port))
        await mesh.until(lambda port=port: f"cannot listen on :{port}" in _messages(mesh), 30.0)  # type: ignore[misc]
        await asyncio.sleep(20)
    await _configure(mesh, control_pb2.GatewayOptions(grpc_port=9000, processes=1, http_port=8003))
    await mesh.until(lambda: _revisions(mesh) == {"n1": [len(wrong) + 1]}, 30.0)
    await mesh.until(lambda: not mesh.stored().HasField("gateways_before") and not _messages(mesh), 60.0)
    assert _ports(mesh.cluster) == [8003]
    assert not mesh.failed
    await mesh.crash()


async def test_nodes_get_more_gateways_and_fewer_while_they_serve() -> None:
    mesh = await _three_nodes()
    for processes in (3, 2, 1):
        await _configure(mesh, control_pb2.GatewayOptions(grpc_port=9000, processes=processes, http_port=8000))
        wanted = {node: [mesh.loop.status().gateways_revision] * processes for node in THREE_NODES}
        seen: list[dict[str, list[int]]] = []
        while mesh.stored().HasField("gateways_before") or _revisions(mesh) != wanted:
            seen.append(_revisions(mesh))
            assert len(seen) < 1000
            assert "cannot listen" not in _messages(mesh), "none fails on its way"
            await asyncio.sleep(0.1)
        assert all(each.keys() == THREE_NODES.keys() for each in seen), "every node has one that serves, all the time"
    assert not mesh.failed
    await mesh.crash()


async def test_a_change_of_options_goes_on_when_the_controller_dies_in_it() -> None:
    for pause_s in range(12):
        mesh = await _three_nodes()
        await _configure(mesh, NEW)
        await asyncio.sleep(pause_s)
        await mesh.crash()
        await mesh.boot()
        await mesh.until(lambda mesh=mesh: _revisions(mesh) == {"n1": [1], "n2": [1], "n3": [1]}, 120.0)  # type: ignore[misc]
        assert not mesh.failed
        await mesh.crash()


@pytest.mark.parametrize("seed", range(30))
async def test_any_storm_ends_with_the_options_that_were_asked_for_last(seed: int) -> None:
    """Messages are lost, gateways and controllers die, some options work nowhere, and the last ones do."""
    mesh, dice = await _three_nodes(), random.Random(seed)
    mesh.cluster.taken_ports = {8001}
    mesh.cluster.faults = Faults(spawn=0.1, lost=0.05, late=0.05, twice=0.05, sick=0.2, hang_in_drain=0.2, kv=0.05)
    for _ in range(8):
        options = control_pb2.GatewayOptions(
            grpc_port=9000, processes=dice.choice([1, 1, 2, 3]), http_port=dice.choice([8000, 8001, 8002])
        )
        with contextlib.suppress(StoreError, InvalidChangeError):
            await _configure(mesh, options)
        await asyncio.sleep(dice.uniform(0.0, 15.0))
        if dice.random() < 0.5:
            mesh.cluster.end(dice.choice([each for each in mesh.cluster.actors.values() if "GATEWAY" in each.name]))
        if dice.random() < 0.3:
            await mesh.crash()
            await mesh.boot()
    mesh.cluster.faults = Faults()
    last = control_pb2.GatewayOptions(grpc_port=9000, processes=dice.choice([1, 2]), http_port=8003)
    await _configure(mesh, last)
    revision = mesh.loop.status().gateways_revision
    wanted = {node: [revision] * last.processes for node in THREE_NODES}
    await mesh.until(lambda: _revisions(mesh) == wanted, 600.0)
    await mesh.until(lambda: not mesh.stored().HasField("gateways_before"), 60.0)
    # Orphans and what drained are gone soon too.
    first_only = [0] * 3 * (last.processes - 1)
    await mesh.until(lambda: sorted(_ports(mesh.cluster)) == [*first_only, 8003, 8003, 8003], 120.0)
    assert not mesh.failed
    await mesh.crash()


def _ports(cluster: FakeCluster) -> list[int]:
    """Of the living gateways; 0 of those that are not the first of their node."""
    specs = (each.spec for each in cluster.actors.values())
    return [each.options.http_port for each in specs if isinstance(each, control_pb2.GatewaySpec)]


async def _configure(mesh: Mesh, options: control_pb2.GatewayOptions) -> None:
    expected = mesh.loop.status().gateway_options
    await mesh.loop.change(lambda state: with_gateways(state, options, expected))


def _revisions(mesh: Mesh) -> dict[str, list[int]]:
    """Of the gateways that serve, by node."""
    found: dict[str, list[int]] = {}
    for each in mesh.loop.status().gateways:
        if each.status == GatewayStatus.HEALTHY:
            found.setdefault(each.node_id, []).append(each.revision)
    return {node_id: sorted(numbers) for node_id, numbers in sorted(found.items())}


def _messages(mesh: Mesh) -> str:
    return "\n".join(each.message for each in mesh.loop.status().gateways if each.message)
