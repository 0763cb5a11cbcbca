"""Input of many frames is read over several turns of the loop, so that no connection keeps the loop for itself."""

from __future__ import annotations

import asyncio
import time

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2 import transport as tested
from mesh.http2.client_connection import ClientConnection
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from mesh.http2.server_connection import ServerConnection
from mesh.http2.stream import Stream
from mesh.http2.transport import Http2Transport
from mesh.http2.write_turn import ENOUGH
from tests.unit.fakes.fake_socket import FakeSocket
from tests.unit.fakes.http2_ends import REQUEST, RESPONSE, Exchange, ServerEnd, data, headers, hold, settings

REQUESTS = 100
FRAMES_PER_TURN = 2 * 2 * ENOUGH
LARGE_BYTES = 64 * 1024
LARGE = wire.frame_header(LARGE_BYTES, wire.DATA, 0, 1) + bytes(LARGE_BYTES)
LIMITS = Limits(frame_max_bytes=LARGE_BYTES, stream_window_bytes=2**30, connection_window_bytes=2**30)


class ReadableSocket(FakeSocket):
    """Its reading can be paused."""

    is_reading = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class Served:
    """A server's transport, and the streams that it has accepted."""

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.socket = ReadableSocket()
        self.transport = Http2Transport(
            lambda _, on_output: ServerConnection(dict, self._accept, LIMITS, time.monotonic, on_output),
            lambda _: None,
        )
        self.transport.connection_made(self.socket)

    def _accept(self, stream: Stream, head: object) -> None:
        self.accepted.append(stream.id)

    def send_requests(self) -> None:
        opening = wire.PREFACE + settings()
        self.transport.data_received(opening + b"".join(headers(2 * number + 1) for number in range(REQUESTS)))


@pytest.fixture(autouse=True)
def _few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "_FRAMES_PER_TURN", FRAMES_PER_TURN)


def test_many_frames_are_read_over_several_turns_in_their_order() -> None:
    async def run() -> None:
        served = Served()
        served.send_requests()
        assert len(served.accepted) < FRAMES_PER_TURN
        assert not served.socket.is_reading, "nothing new comes before the rest is read"
        turns = 0
        while not served.socket.is_reading or served.transport.connection.reader.has_unread:
            turns += 1
            await asyncio.sleep(0)
        assert served.accepted == [2 * number + 1 for number in range(REQUESTS)]
        assert turns == REQUESTS // FRAMES_PER_TURN

    asyncio.run(run())


def test_a_large_head_counts_as_many_frames() -> None:
    """A read of 256 KiB has few of them, and each costs as much as a hundred calls."""

    async def run() -> None:
        served = Served()
        many = (*REQUEST, *((b"a", b"%d" % number) for number in range(300)))
        served.transport.data_received(wire.PREFACE + settings() + b"".join(headers(n, many) for n in (1, 3, 5, 7, 9)))
        assert len(served.accepted) < 5
        assert not served.socket.is_reading
        for _ in range(10):
            await asyncio.sleep(0)
        assert served.accepted == [1, 3, 5, 7, 9]

    asyncio.run(run())


def test_few_frames_are_read_at_once() -> None:
    async def run() -> None:
        served = Served()
        served.transport.data_received(wire.PREFACE + settings() + headers(1))
        assert served.accepted == [1]
        assert served.socket.is_reading

    asyncio.run(run())


def test_after_some_large_reads_the_loop_has_its_turn() -> None:
    """uvloop would go on reading the socket of a fast sender, however much there is."""

    async def run() -> None:
        served = Served()
        served.transport.data_received(wire.PREFACE + settings() + headers(1))
        pauses = 0
        for _ in range(20):
            served.transport.data_received(LARGE)
            if not served.socket.is_reading:
                pauses += 1
                await asyncio.sleep(0)
                assert served.socket.is_reading
        assert pauses == 5  # behind every fourth

    asyncio.run(run())


def test_fast_senders_share_the_large_reads_of_a_turn() -> None:
    """Twenty of them would otherwise keep the loop for twenty times as long."""

    async def run() -> None:
        first, second, third = senders = Served(), Served(), Served()
        for each in senders:
            each.transport.data_received(wire.PREFACE + settings() + headers(1))
        for _ in range(3):
            first.transport.data_received(LARGE)
        assert first.socket.is_reading
        second.transport.data_received(LARGE)
        third.transport.data_received(LARGE)
        assert [each.socket.is_reading for each in senders] == [True, False, False]
        await asyncio.sleep(0)
        assert [each.socket.is_reading for each in senders] == [True, True, True]
        third.transport.data_received(LARGE)
        assert third.socket.is_reading

    asyncio.run(run())


def test_what_a_server_answers_is_read_as_it_comes() -> None:
    """A link carries the answers for all clients, so it needs more of the loop than any of them."""

    async def run() -> None:
        receiver, socket = Exchange(hold), ReadableSocket()
        transport = Http2Transport(
            lambda _, on_output: ClientConnection(list, LIMITS, time.monotonic, on_output), lambda _: None
        )
        transport.connection_made(socket)
        assert isinstance(transport.connection, ClientConnection)
        transport.data_received(settings())
        transport.connection.open(encode_fields(REQUEST), receiver)
        transport.data_received(headers(1, RESPONSE))
        for _ in range(20):
            transport.data_received(LARGE)
        assert socket.is_reading
        assert len(receiver.body) == 20 * LARGE_BYTES

    asyncio.run(run())


def test_what_waits_to_be_read_is_dropped_with_its_connection() -> None:
    async def run() -> None:
        served = Served()
        served.send_requests()
        accepted = len(served.accepted)
        served.transport.connection_lost(None)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(served.accepted) == accepted

    asyncio.run(run())


def test_what_waits_behind_a_fault_is_not_read() -> None:
    async def run() -> None:
        served = Served()
        wrong = wire.frame_header(7, wire.PING, 0, 0) + bytes(7)
        served.transport.data_received(wire.PREFACE + settings() + wrong + headers(1) * 100)
        assert served.transport.connection.fault is not None
        assert not served.transport.connection.reader.has_unread
        assert not served.accepted

    asyncio.run(run())


def test_a_pause_in_the_middle_of_a_frame_costs_its_sender_nothing() -> None:
    """The reader is asked for more when it goes on, though nothing has come: that is no empty frame of the peer."""
    server = ServerEnd()
    whole = data(1, bytes(wire.FRAME_BYTES_MIN))
    server.receive(headers(1), whole[:10_000])
    for _ in range(2 * Limits().control_burst):
        server.connection.receive(b"")
    server.receive(whole[10_000:], data(1, ends=True))
    assert server.connection.fault is None
    assert server.exchanges[1].body == bytes(wire.FRAME_BYTES_MIN)
