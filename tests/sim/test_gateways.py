"""Gateways that do not come up, in fake time.

A test runs the coroutine that follows it; what is asserted stands there.
"""

import asyncio

from mesh.status import GatewayStatus
from mesh.v1 import control_pb2
from tests.sim.fake_cluster import Actor, FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time

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


def test_a_gateway_that_hangs_in_its_start_is_replaced_when_its_time_is_over() -> None:
    run_in_fake_time(_hang())


async def _hang() -> None:
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


def test_gateways_of_one_node_are_replaced_and_adopted_one_by_one() -> None:
    run_in_fake_time(_several())


async def _several() -> None:
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
