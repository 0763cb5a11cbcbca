"""Callers of a full replica all get their turn."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mesh.settings import settings
from tests.unit.fakes.raw_peer import DEADLINE_S, Service
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, mesh_of, on_io, until

pytestmark = pytest.mark.timeout(60)


def test_callers_who_fill_a_replica_together_all_get_their_turn() -> None:
    """Each of them sees the others' calls only through what the replica tells."""
    service = Service()
    with mesh_of(service, limit=2) as mesh:
        others = [SmallMesh((mesh.replicas[0],)).connected() for _ in range(3)]
        try:
            responses = [each.handle().remote(number) for number in range(200) for each in (mesh, *others)]
            results = [response.result(timeout_s=DEADLINE_S) for response in responses]
            assert results == [number for number in range(200) for _ in range(4)]
        finally:
            for each in others:
                on_io(each.router.close())
        mesh.assert_idle()


def test_a_caller_with_a_long_call_gets_a_report_when_others_have_left() -> None:
    """It knows of one other call and has one itself, so it takes the replica for full. Then the other call ends."""
    service = Service()
    with mesh_of(service, limit=2) as mesh:
        other = SmallMesh((mesh.replicas[0],)).connected()
        try:
            foreign = other.handle("hang").remote()
            until(lambda: service.started == 1, "the other's call to run")
            assert mesh.handle().remote(0).result(timeout_s=DEADLINE_S) == 0
            own = mesh.handle("hang").remote()
            until(lambda: service.started == 2, "both to run")
            queued = mesh.handle().remote(1)
            foreign.cancel()
            assert queued.result(timeout_s=DEADLINE_S) == 1
            own.cancel()
        finally:
            on_io(other.router.close())
        mesh.assert_idle()


def test_a_raised_limit_lets_waiting_calls_in() -> None:
    service = Service()
    with mesh_of(service, limit=1) as mesh:
        replica = mesh.replicas[0]
        hanging = [mesh.handle("hang").remote() for _ in range(3)]
        until(lambda: service.started == 1, "one to run")
        do_on_io(replica.admission.set_limit, 3, replica.servicer.links)
        mesh.publish()
        until(lambda: service.started == 3, "all to run")
        for response in hanging:
            response.cancel()
        mesh.assert_idle()


class Brief:
    async def __call__(self) -> None:
        await asyncio.sleep(0.001)


def test_a_hundred_callers_of_four_places_are_hardly_ever_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that becomes free wakes one of them. When all was new to all, some had to be refused."""
    # However slow the machine is, what they know does not age, and none loses an offer because its turn comes late.
    known = settings()
    patient = replace(
        known, link=replace(known.link, offer_timeout_s=60.0), routing=replace(known.routing, load_half_life_s=60.0)
    )
    for module in ("mesh.link.admission", "mesh.routing.link_pool"):
        monkeypatch.setattr(f"{module}.settings", lambda: patient)
    with mesh_of(Brief(), limit=4) as mesh:
        callers = [SmallMesh((mesh.replicas[0],)).connected() for _ in range(100)]
        try:
            handles = [each.handle() for each in callers]

            async def call_all(rounds: int) -> None:
                await asyncio.gather(*(handle.remote() for handle in handles for _ in range(rounds)))

            asyncio.run(call_all(1))
            before = sum(each.router.counts.rejected for each in callers)
            asyncio.run(call_all(10))
            rejected = sum(each.router.counts.rejected for each in callers) - before
            # Each may be refused once at the beginning of a round.
            assert rejected <= 2 * len(callers)
        finally:
            for each in callers:
                on_io(each.router.close())
        mesh.assert_idle()
