"""A large call that comes to a full replica takes no memory there, and is rejected when all of it has come."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.exceptions import CancelReason
from mesh.link import frames
from mesh.link.callee_link import CalleeLink
from mesh.link.frames import LargeMessage
from mesh.link.outgoing_call import CallRequest
from mesh.settings import settings
from mesh.v1 import replica_pb2
from mesh.wire.payload import encode
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.raw_peer import Peer, Service, converse, end_of, hello, open_frame, replica_of
from tests.unit.fakes.small_mesh import SmallMesh, SmallReplica, mesh_of, on_io, until, until_async

pytestmark = pytest.mark.timeout(60)

SIZE = 4_000_000


def parts_of_open(call_id: int) -> list[bytes]:
    request = CallRequest("__call__", encode(((b"x" * SIZE,), {})), RequestContext("id"))
    message = frames.pack_open(call_id, request)
    assert isinstance(message, LargeMessage)
    parts = []
    while not message.is_taken:
        parts.append(b"".join(message.take_part(settings().payload.part_bytes)))
    return parts


class Inbox:
    """The frames that a peer gets, one after the other."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._frames: list[replica_pb2.Frame] = []

    async def next(self, *kinds: str) -> replica_pb2.Frame:
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if frame.WhichOneof("kind") in kinds:
                    return frame
            self._frames = await self._peer.read()


def link_of(replica: SmallReplica) -> CalleeLink:
    (link,) = replica.servicer.links
    assert isinstance(link, CalleeLink)
    return link


def test_the_parts_of_a_call_without_a_place_are_dropped() -> None:
    with replica_of(Service(), limit=1) as replica:

        async def talk(peer: Peer) -> None:
            inbox = Inbox(peer)
            await peer.write(hello(replica), open_frame(1, "hang"))
            await until_async(lambda: replica.ongoing == 1, "the only place to be taken")
            *parts, last = parts_of_open(2)
            await peer.write(*parts)
            await until_async(lambda: link_of(replica)._dropping, "the parts")
            assert link_of(replica).unfinished == 0
            await peer.write(last)
            rejected = await inbox.next("reject", "result")
            assert rejected.WhichOneof("kind") == "reject"
            assert rejected.call_id == 2
            assert not link_of(replica)._dropping

        converse(replica, talk)
        assert replica.admission.rejected == 1


def test_a_caller_that_was_rejected_learns_of_the_place_that_is_free_by_then() -> None:
    with replica_of(Service(), limit=1) as replica:

        async def talk(peer: Peer) -> Any:
            inbox = Inbox(peer)
            await peer.write(hello(replica), open_frame(1, "hang"))
            await until_async(lambda: replica.ongoing == 1, "the only place to be taken")
            *parts, last = parts_of_open(2)
            await peer.write(*parts)
            await until_async(lambda: link_of(replica)._dropping, "the parts")
            await peer.write(frames.pack_cancel(1, CancelReason.CLIENT))
            await until_async(lambda: not replica.ongoing, "the place to be free")
            await peer.write(last)
            await inbox.next("reject")
            load = await inbox.next("load")
            await peer.write(*parts_of_open(2))
            answer = await inbox.next("part", "reject")
            return load.load.ongoing, answer.WhichOneof("kind")

        assert converse(replica, talk) == (0, "part"), "the value comes back"


def test_a_cancel_ends_a_call_whose_parts_are_dropped() -> None:
    with replica_of(Service(), limit=1) as replica:

        async def talk(peer: Peer) -> int:
            inbox = Inbox(peer)
            await peer.write(hello(replica), open_frame(1, "hang"))
            await until_async(lambda: replica.ongoing == 1, "the only place to be taken")
            await peer.write(parts_of_open(2)[0], frames.pack_cancel(2, CancelReason.CLIENT))
            result = await inbox.next("result", "reject")
            assert result.WhichOneof("kind") == "result"
            assert not link_of(replica)._dropping
            return result.call_id

        assert converse(replica, talk) == 2


def test_large_calls_of_many_callers_all_come_through_one_place() -> None:
    with mesh_of(Service(), limit=1) as mesh:
        others = [SmallMesh(tuple(mesh.replicas)).connected() for _ in range(3)]
        try:
            value = b"x" * SIZE
            responses = [each.handle().remote(value) for each in (mesh, *others) for _ in range(5)]
            assert all(end_of(response) == value for response in responses)
            until(lambda: mesh.replicas[0].is_idle, "all places")
            assert not any(link._dropping for link in mesh.replicas[0].servicer.links)  # type: ignore[attr-defined]
        finally:
            for each in others:
                on_io(each.router.close())
