"""The drain of a replica: no new calls reach it, and none is lost."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
import pytest

from mesh.link import frames
from tests.unit.fakes.raw_peer import DEADLINE_S, Peer, Service, converse, hello, open_frame, replica_of
from tests.unit.fakes.small_mesh import SmallReplica, do_on_io, mesh_of, on_io, until

pytestmark = pytest.mark.timeout(60)


def test_a_draining_replica_gets_no_new_calls_and_ends_those_it_has() -> None:
    class Gate(Service):
        def __init__(self) -> None:
            super().__init__()
            self.event = asyncio.Event()

        async def wait(self) -> int:
            self.started += 1
            await self.event.wait()
            return self.started

    gates = Gate(), Gate()
    with mesh_of(*gates) as mesh:
        waiting = [mesh.handle("wait").remote() for _ in range(20)]
        until(lambda: gates[0].started + gates[1].started == 20, "all to run")
        on_first = gates[0].started
        assert repr(mesh.replicas[0].servicer).endswith(", open, links: 1>")
        do_on_io(mesh.replicas[0].servicer.drain)
        assert repr(mesh.replicas[0].servicer).endswith(", draining, links: 1>")
        more = [mesh.handle("wait").remote() for _ in range(20)]
        until(lambda: gates[1].started == 40 - on_first, "all new calls on the other")
        assert repr(waiting[0]._future).endswith(", waiting>")
        for gate, replica in zip(gates, mesh.replicas, strict=True):
            replica.user_loop.post(gate.event.set)
        for response in (*waiting, *more):
            response.result(timeout_s=DEADLINE_S)
            assert repr(response._future).endswith(", done>")
        assert gates[0].started == on_first
        mesh.assert_idle()


def test_a_drain_waits_until_results_have_left() -> None:
    with mesh_of(Service()) as mesh:
        replica = mesh.replicas[0]
        value = b"x" * 20_000_000
        response = mesh.handle().remote(value)
        until(lambda: replica.counts.methods["__call__"].by_code, "the call to have ended at its replica")

        on_io(leave(replica))
        assert response.result(timeout_s=DEADLINE_S) == value


async def leave(replica: SmallReplica) -> None:
    """What a replica without calls does when it drains."""
    replica.servicer.drain()
    await replica.servicer.wait_drain_acknowledged()
    await replica.admission.idle()
    await replica.servicer.flush()
    replica.servicer.stop()


@pytest.mark.parametrize("size", [1, 300_000], ids=["small", "in parts"])
def test_no_call_is_lost_on_the_way_to_a_replica_that_leaves(size: int) -> None:
    with mesh_of(*(Service() for _ in range(12))) as mesh:
        value = b"x" * size

        def call_on() -> int:
            count = 0
            while not is_over.is_set():
                assert mesh.handle().remote(value).result(timeout_s=DEADLINE_S) == value
                count += 1
            return count

        is_over = threading.Event()
        with ThreadPoolExecutor(8) as pool:
            callers = [pool.submit(call_on) for _ in range(8)]
            try:
                for replica in mesh.replicas[1:]:
                    on_io(leave(replica))
            finally:
                is_over.set()
        assert all(caller.result() for caller in callers)
        mesh.assert_idle()


def test_a_call_that_crosses_a_drain_is_refused_and_not_lost() -> None:
    async def talk(peer: Peer) -> list[str]:
        await peer.write(hello(replica))
        await peer.read()
        leaving = asyncio.create_task(leave(replica))
        assert [each.WhichOneof("kind") for each in await peer.read()] == ["drain"]
        await peer.write(open_frame(1))
        answers = [each.WhichOneof("kind") or "" for each in await peer.read()]
        assert not leaving.done()
        await peer.write(frames.pack_drain())
        await leaving
        assert (await peer.failure())[0] is grpc.StatusCode.OK
        return answers

    with replica_of(Service()) as replica:
        assert converse(replica, talk) == ["reject"]


def test_a_caller_that_connects_to_a_leaving_replica_gets_the_drain_first() -> None:
    async def talk(peer: Peer) -> list[str]:
        await peer.write(hello(replica))
        return [each.WhichOneof("kind") or "" for each in await peer.read()]

    with replica_of(Service()) as replica:
        do_on_io(replica.servicer.drain)
        assert converse(replica, talk) == ["drain", "welcome"]


def test_a_delisted_replica_ends_its_calls_and_then_its_link() -> None:
    service = Service()
    with mesh_of(service, Service()) as mesh:
        hanging = [mesh.handle("hang").remote() for _ in range(20)]
        until(lambda: service.started, "a call to run")
        delisted = mesh.replicas.pop(0)
        mesh.publish()
        assert mesh.handle().remote(1).result(timeout_s=DEADLINE_S) == 1
        assert delisted.servicer.links
        assert mesh.router.ongoing == 20
        for response in hanging:
            response.cancel()
        until(lambda: not delisted.servicer.links, "the link to be closed")
        delisted.close()
        mesh.assert_idle()
