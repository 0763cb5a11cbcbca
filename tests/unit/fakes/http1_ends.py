"""An HTTP/1.1 connection on a socket that is not there, a receiver that keeps what it gets, and answers read by h11."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import h11

from gateway.http1.http1_connection import Http1Connection
from gateway.http1.http1_limits import Http1Limits
from gateway.http1.http1_service import Http1Service
from gateway.requests.exchange import BrokenBy, Exchange, ExchangeReceiver
from gateway.requests.in_flight import InFlight
from mesh.http2.limits import BufferBudget


def on_loop(test: Callable[..., None]) -> Callable[..., None]:
    """Run the test on an event loop, which connections need for their turn of writing. What is due later runs too."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def scenario() -> None:
            test(*args, **kwargs)

        asyncio.run(scenario())

    return run


class FakeTransport:
    """What asyncio calls a transport; it keeps what is written, and takes only `room` bytes of it if that is set."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.writes = 0
        self.protocol: Any = None
        self.is_reading = True
        self.is_half_closed = self.is_closed = self.is_aborted = False
        self.is_stuck = False

    def get_extra_info(self, name: str) -> Any:
        return ("10.0.0.1", 4711) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        assert not self.is_half_closed
        self.writes += 1
        self.written += data
        if self.is_stuck:
            self.protocol.pause_writing()

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_half_closed = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


class Keeper:
    """The receiver of one exchange: it keeps all events, and gives the room back unless it is `slow`."""

    def __init__(self, exchange: Exchange, *, slow: bool = False) -> None:
        self.exchange = exchange
        self.body = b""
        self.ends = 0
        self.broken: list[BrokenBy] = []
        self.writable = 0
        self._slow = slow

    def on_body(self, data: bytes) -> None:
        assert data
        assert self.ends == len(self.broken) == 0
        self.body += data
        if not self._slow:
            self.exchange.give_room(len(data))

    def on_end(self) -> None:
        assert self.ends == len(self.broken) == 0
        self.ends += 1

    def on_broken(self, by: BrokenBy) -> None:
        assert not self.broken
        self.broken.append(by)

    def on_writable(self) -> None:
        self.writable += 1


Opener = Callable[[Exchange], ExchangeReceiver | None]


class Client:
    """A connection, and what its client sends and gets. On a loop only."""

    def __init__(
        self,
        opener: Opener | None = None,
        limits: Http1Limits | None = None,
        budget: BufferBudget | None = None,
        in_flight: InFlight | None = None,
    ) -> None:
        """`in_flight`: of a listener with other connections; None: this is its only one."""
        self.exchanges: list[Exchange] = []
        self.keepers: list[Keeper] = []
        self.lost: list[Http1Connection] = []
        self.in_flight = in_flight or InFlight()
        self._opener = opener or self._keep
        self.budget = budget or BufferBudget()
        service = Http1Service(
            open=self._open,
            answer_fault=lambda *_: False,
            on_lost=self.lost.append,
            in_flight=self.in_flight,
            limits=limits or Http1Limits(),
            budget=self.budget,
        )
        self.connection = Http1Connection(service)
        self.transport = FakeTransport()
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def send(self, *pieces: bytes) -> Client:
        for piece in pieces:
            self.connection.data_received(piece)
        return self

    def leave(self) -> None:
        """The socket is closed, by whichever side."""
        self.transport.is_closed = True
        self.connection.connection_lost(None)

    def let_write(self) -> None:
        """The socket takes more."""
        self.transport.is_stuck = False
        self.connection.resume_writing()

    def written(self) -> bytes:
        """Since the last time."""
        data, self.transport.written = bytes(self.transport.written), bytearray()
        return data

    @property
    def statuses(self) -> list[int]:
        """Of all answers since the last time, whose bodies all have a content-length."""
        return [status for status, _, _ in answers(self.written())]

    def _open(self, exchange: Exchange) -> ExchangeReceiver | None:
        self.exchanges.append(exchange)
        receiver = self._opener(exchange)
        if receiver is not None:
            exchange.ask_for_body()
        return receiver

    def _keep(self, exchange: Exchange) -> Keeper:
        self.keepers.append(Keeper(exchange))
        return self.keepers[-1]


def answers(data: bytes, *methods: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, fields and body of each answer, as h11 reads them; the requests had these methods, or GET."""
    found: list[tuple[int, dict[str, str], bytes]] = []
    number = 0
    while data:
        client = h11.Connection(h11.CLIENT)
        method = methods[number] if number < len(methods) else b"GET"
        client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        status, fields, body = 0, {}, b""
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, f"the answer is not complete: {data!r}"
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.InformationalResponse | h11.Response):
                status = event.status_code
                fields = {name.decode(): value.decode() for name, value in event.headers}
        fields.update({f"trailer {name.decode()}": value.decode() for name, value in event.headers})
        found.append((status, fields, body))
        data = client.trailing_data[0]
        number += 1
    return found


def request(line: str = "GET / HTTP/1.1", *fields: str, body: bytes = b"") -> bytes:
    """The bytes of a request; it has a host."""
    return "\r\n".join([line, "host: a", *fields, "", ""]).encode() + body
