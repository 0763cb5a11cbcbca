"""A connection that ends takes thousands of streams with it: some in each turn of the loop, so that others go on."""

from __future__ import annotations

import asyncio
import time

from mesh.http2 import frame_format as wire
from mesh.http2.connection import STREAMS_ENDED
from mesh.http2.frame_format import ErrorCode
from mesh.http2.limits import Limits
from mesh.http2.server_connection import ServerConnection
from mesh.http2.stream import Stream
from mesh.http2.transport import Http2Transport
from tests.unit.fakes.fake_socket import FakeSocket
from tests.unit.fakes.http2_ends import Exchange, echo, headers, settings

REQUESTS = 2 * STREAMS_ENDED + 50
WRONG = wire.frame_header(7, wire.PING, 0, 0) + bytes(7)


class Served:
    """A server's transport with open streams."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.lost: list[Http2Transport] = []
        self.socket = FakeSocket()
        self.transport = Http2Transport(
            lambda _, on_output: ServerConnection(dict, self._accept, Limits(), time.monotonic, on_output),
            self.lost.append,
        )
        self.transport.connection_made(self.socket)
        requests = b"".join(headers(2 * number + 1) for number in range(REQUESTS))
        self.transport.data_received(wire.PREFACE + settings())
        for start in range(0, len(requests), 1_000):
            self.transport.data_received(requests[start : start + 1_000])

    def _accept(self, stream: Stream, head: object) -> None:
        stream.receiver = exchange = Exchange(echo)
        exchange.stream = stream
        self.exchanges.append(exchange)

    @property
    def open(self) -> int:
        return sum(not each.stream.has_ended for each in self.exchanges)

    async def turns(self) -> list[int]:
        """Streams that are open after each further turn, until none is."""
        counts = []
        while self.open:
            await asyncio.sleep(0)
            counts.append(self.open)
        return counts


def test_a_lost_connection_ends_its_streams_in_turns() -> None:
    async def run() -> None:
        served = Served()
        served.transport.connection_lost(None)
        assert served.lost == [served.transport]
        assert served.open == REQUESTS - STREAMS_ENDED
        assert await served.turns() == [50, 0]
        assert [each.reset_code for each in served.exchanges] == [ErrorCode.CONNECT_ERROR] * REQUESTS

    asyncio.run(run())


def test_a_fault_ends_the_streams_in_turns_and_nothing_is_written_behind_it() -> None:
    async def run() -> None:
        served = Served()
        await asyncio.sleep(0)
        served.socket.frames()
        served.transport.data_received(WRONG)
        assert served.socket.is_closed
        assert served.open
        for each in served.exchanges:
            each.stream.connection.outbox.send_headers(each.stream, b"\x88")
        await served.turns()
        assert [each.kind for each in served.socket.frames()] == [wire.GOAWAY]
        assert not served.lost, "the socket is not closed yet"

    asyncio.run(run())


def test_a_socket_that_is_lost_while_streams_end_is_reported_once() -> None:
    async def run() -> None:
        served = Served()
        served.transport.data_received(WRONG)
        served.transport.connection_lost(None)
        await served.turns()
        assert served.lost == [served.transport]
        assert {each.reset_code for each in served.exchanges} == {ErrorCode.FRAME_SIZE_ERROR}

    asyncio.run(run())
