"""Messages of a link: what each one brings about may leave before the next one is read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.write_turn import ENOUGH, write_turn
from mesh.link import frames
from mesh.link.admission import Admission
from mesh.link.callee_link import IncomingCall
from mesh.link.link_servicer import LinkServicer
from mesh.link.link_stream import HELLO_MAX_BYTES, LINK_LIMITS, LINK_METHOD, LinkStream
from mesh.rpc.grpc_fields import request_block
from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_requests import RpcRequests
from tests.unit.fakes.http2_ends import data as data_frame
from tests.unit.fakes.http2_ends import frame, settings
from tests.unit.fakes.raw_peer import open_frame

STREAM: Any = SimpleNamespace(connection=SimpleNamespace(give_room=lambda stream, size: None), has_ended=False)


def message(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


def test_what_one_message_brings_about_leaves_before_the_next_one_is_read() -> None:
    """A client works on the first answers while the gateway reads the others."""
    events: list[str] = []

    async def read_two() -> None:
        turn = write_turn()

        def on_message(data: bytes) -> None:
            events.append(data.decode())
            turn.add(lambda: events.append(f"written after {data.decode()}"))
            turn.waiting += ENOUGH

        receiver = LinkStream(on_message, lambda reason, code: events.append(reason))
        turn.begin()
        for name in (b"first", b"second"):
            data = message(name)
            receiver.on_data(STREAM, data, 0, len(data))
        events.append("read")
        turn.end()

    asyncio.run(read_two())
    assert events == ["first", "written after first", "second", "written after second", "read"]


def pieces(body: bytes, size: int = 1_000) -> list[bytes]:
    data = message(body)
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_a_stranger_cannot_make_a_replica_keep_more_than_a_hello() -> None:
    """Sixteen streams of each connection could bring 64 MiB each before their time for a Hello was over."""
    got: list[bytes] = []
    ends: list[str] = []

    async def read() -> int:
        receiver = LinkStream(got.append, lambda reason, code: ends.append(reason), HELLO_MAX_BYTES)
        taken_bytes = 0
        for piece in pieces(bytes(10 * HELLO_MAX_BYTES)):
            receiver.on_data(STREAM, piece, 0, len(piece))
            taken_bytes += len(piece)
            if ends:
                break
        assert receiver._reader is None, "nothing is kept of it"
        return taken_bytes

    assert asyncio.run(read()) <= HELLO_MAX_BYTES + 1_000
    assert ends == ["malformed frames: the first message is too long"]
    assert not got


def test_a_hello_may_come_in_pieces_and_what_follows_it_may_be_long() -> None:
    got: list[bytes] = []

    async def read() -> None:
        def accept(data: bytes) -> None:
            got.append(data)
            receiver.become(got.append, lambda part: None, lambda reason, code: None)

        receiver = LinkStream(accept, lambda reason, code: got.append(reason.encode()), HELLO_MAX_BYTES)
        for piece in (*pieces(b"hello", 3), *pieces(bytes(10 * HELLO_MAX_BYTES))):
            receiver.on_data(STREAM, piece, 0, len(piece))

    asyncio.run(read())
    assert got == [b"hello", bytes(10 * HELLO_MAX_BYTES)]


@pytest.mark.parametrize("malformed", [b"\xff\xff garbage", b""], ids=["wrong frames", "the replica stops"])
def test_a_call_that_comes_behind_the_end_of_its_link_does_not_run(malformed: bytes) -> None:
    """The link's stream lasts until the socket takes its status, which may be long after the link has ended."""
    started: list[IncomingCall] = []

    async def run() -> None:
        service: Any = SimpleNamespace(start=started.append)
        servicer = LinkServicer("r1", Admission(10), service, token_matches=lambda token: True)
        connection = RpcRequests(read_request_head, servicer.accept, limits=LINK_LIMITS).connection("", lambda: None)
        block = request_block(LINK_METHOD, "r1")
        connection.receive(wire.PREFACE + settings() + frame(wire.HEADERS, wire.END_HEADERS, 1, block))
        connection.receive(data_frame(1, message(frames.pack_hello("r1", b""))))
        connection.receive(data_frame(1, message(open_frame(1))))
        connection.outbox.is_paused = True
        if malformed:
            connection.receive(data_frame(1, message(malformed)))
        else:
            servicer.stop()
        assert connection.streams, "the status waits for the socket"
        connection.receive(data_frame(1, message(open_frame(2))))
        assert not servicer.links

    asyncio.run(run())
    assert [call.call_id for call in started] == [1]
