"""Loads that were reported long ago: an idle replica is found again, a full one is left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh.link.caller_link import CallerLink
from mesh.routing.endpoint import Endpoint
from mesh.routing.router import Router
from mesh.routing.snapshot import ReplicaInfo
from tests.unit.fakes.small_mesh import DEADLINE_S, KEY, SmallMesh, do_on_io, mesh_of, on_io, until

pytestmark = pytest.mark.timeout(60)


def endpoint_with(others: int, limit: int = 1000) -> Endpoint:
    endpoint = Endpoint(ReplicaInfo("r", "a"), limit)
    endpoint.link = CallerLink("r", observer=None)  # type: ignore[arg-type]
    endpoint.link.others_ongoing = others
    return endpoint


def test_a_load_is_halved_at_each_tick_until_none_is_left() -> None:
    endpoint = endpoint_with(others=100)
    loads = []
    while endpoint.age_load():
        loads.append(endpoint.load)
    assert loads == [50, 25, 12, 6, 3, 1]
    assert endpoint.load == 0


def test_a_load_that_was_reported_since_the_last_tick_is_not_halved() -> None:
    endpoint = endpoint_with(others=100)
    endpoint.is_load_fresh = True
    assert endpoint.age_load()
    assert endpoint.load == 100
    endpoint.age_load()
    assert endpoint.load == 50


def test_a_full_replica_does_not_age_because_it_reports_its_next_free_place() -> None:
    endpoint = endpoint_with(others=5, limit=5)
    assert not endpoint.age_load()
    assert endpoint.load == 5


class Worker:
    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()

    async def work(self) -> None:
        self.calls += 1
        await asyncio.sleep(0.005)

    async def wait(self) -> None:
        await self.gate.wait()


async def keep_in_flight(handle: Any, count: int, calls: int) -> None:
    async def caller() -> None:
        for _ in range(calls // count):
            await handle.remote()

    await asyncio.gather(*(caller() for _ in range(count)))


def test_a_replica_that_was_busy_once_gets_calls_again() -> None:
    """Another caller's 100 calls have ended, but this caller hears of that only from the replica's next result."""
    busy, idle = Worker(), Worker()
    with mesh_of(busy, idle, limit=1000) as mesh:
        other = SmallMesh.__new__(SmallMesh)
        other.replicas, other.queued_max, other.identity = mesh.replicas[:1], -1, mesh.identity
        other.router = do_on_io(Router, KEY, mesh.identity)
        other.publish()
        other.connected()
        held = [other.handle("wait").remote() for _ in range(100)]
        until(lambda: mesh.replicas[0].ongoing == 100, "the first replica to be busy")
        endpoint = mesh.endpoints[mesh.replicas[0].replica_id]
        assert endpoint.link is not None
        while not endpoint.link.others_ongoing:
            asyncio.run(keep_in_flight(mesh.handle("work"), 2, 4))
        mesh.replicas[0].user_loop.post(busy.gate.set)
        for response in held:
            response.result(timeout_s=DEADLINE_S)
        on_io(other.router.close())
        busy.calls = idle.calls = 0
        asyncio.run(keep_in_flight(mesh.handle("work"), 40, 8000))
        assert busy.calls > 2000, "of 8000 calls in about a second, nearly half go there"
        until(lambda: not mesh.router.pool.is_ticking, "the end of the ticks: no load is left to age")
