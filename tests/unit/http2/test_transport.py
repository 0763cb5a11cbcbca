"""A connection on a socket that is not there, and sets of them, in fake time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2 import transport as module
from mesh.http2.client_connection import ClientConnection
from mesh.http2.connection import Connection
from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from mesh.http2.server_connection import ServerConnection
from mesh.http2.transport import Http2Transport, TransportSet
from mesh.http2.upkeep import UpkeepPolicy
from mesh.http2.write_turn import ENOUGH
from tests.unit.fakes.fake_socket import FakeSocket
from tests.unit.fakes.http2_ends import RESPONSE, Exchange, FakeClock, data, echo, failures, headers, settings
from tests.unit.fakes.rpc_ends import until

POLICY = UpkeepPolicy(idle_timeout_s=300, age_max_s=1_000)


class Shell:
    """A server's transport on such a socket."""

    def __init__(self, address: Any = ("10.0.0.1", 4711), clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.lost: list[Http2Transport] = []
        self.transport = Http2Transport(self._make, self.lost.append)
        self.transport.clock = module.UpkeepClock(self.clock())
        self.socket = FakeSocket(address)
        with self.turn():
            self.transport.connection_made(self.socket)

    def _make(self, transport: Http2Transport, on_output: Callable[[], None]) -> Connection[Any]:
        return ServerConnection(lambda fields: fields, self._on_request, Limits(), self.clock, on_output)

    def _on_request(self, stream: Any, head: Any) -> None:
        stream.receiver = exchange = Exchange(echo)
        exchange.stream = stream
        exchange.heads.append(head)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """At its end, what is due is written."""
        self.transport._turn.begin()
        yield
        self.transport._turn.end()

    def greet(self) -> None:
        self.transport.data_received(wire.PREFACE + settings())
        self.socket.frames()


class ClientShell(Shell):
    """A client's one."""

    def _make(self, transport: Http2Transport, on_output: Callable[[], None]) -> Connection[Any]:
        return ClientConnection(lambda fields: fields, Limits(), self.clock, on_output)


def shells(scenario: Callable[[], Any]) -> None:
    """Run it on a loop, which transports need for their turn of writing."""

    async def run() -> None:
        result = scenario()
        if asyncio.iscoroutine(result):
            await result

    asyncio.run(run())


def calls(count: int) -> bytes:
    """Of two frames each."""
    return b"".join(headers(number) + data(number, b"x", ends=True) for number in range(1, 2 * count, 2))


# ---- Reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("10.0.0.1", 80), "ipv4:10.0.0.1:80"),
        (("::1", 80, 0, 0), "ipv6:%5B::1%5D:80"),
        ("", "unix:"),
        (b"\0abstract", "unix:"),
        (None, "unix:"),
    ],
)
def test_peers_are_named_as_grpc_names_them(address: Any, name: str) -> None:
    def scenario() -> None:
        assert Shell(address).transport.peer == name

    shells(scenario)


def test_all_that_one_read_brings_about_is_one_write() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        shell.socket.writes = 0
        shell.transport.data_received(calls(ENOUGH))
        assert shell.socket.writes == 1
        assert len(shell.socket.frames()) == 3 * ENOUGH

    shells(scenario)


def test_what_a_long_read_brings_about_is_written_in_steps() -> None:
    """The peer works on the first answers while the next calls are read; each answer is written once."""

    def scenario() -> None:
        shell = Shell()
        shell.greet()
        shell.socket.writes = 0
        shell.transport.data_received(calls(5 * ENOUGH + 1))
        assert shell.socket.writes == 6
        frames = shell.socket.frames()
        assert [each.stream_id for each in frames if each.kind == wire.DATA] == list(range(1, 10 * ENOUGH + 3, 2))

    shells(scenario)


def test_a_fault_in_a_long_read_ends_it() -> None:
    """What came before it is answered, what is behind it is not read."""

    def scenario() -> None:
        shell = Shell()
        shell.greet()
        wrong = wire.frame_header(7, wire.PING, 0, 0) + bytes(7)
        shell.transport.data_received(calls(2 * ENOUGH) + wrong + calls(2 * ENOUGH))
        kinds = [frame.kind for frame in shell.socket.frames()]
        assert kinds.count(wire.DATA) == 2 * ENOUGH
        assert kinds[-1] == wire.GOAWAY
        assert shell.socket.is_closed

    shells(scenario)


def test_a_socket_that_is_full_is_not_written_until_it_takes_more() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        shell.transport.data_received(wire.window_update_frame(0, 2**20) + settings((4, 2**20)))
        shell.socket.frames()
        shell.transport.pause_writing()
        shell.transport.data_received(headers(1) + data(1, bytes(16_000)) + data(1, bytes(16_000), ends=True))
        assert not [each for each in shell.socket.frames() if each.kind == wire.DATA]
        with shell.turn():
            shell.transport.resume_writing()
        assert sum(len(each.payload) for each in shell.socket.frames() if each.kind == wire.DATA) == 32_000

    shells(scenario)


def test_a_fault_is_said_and_ends_the_connection() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.transport.data_received(b"GET / HTTP/1.1\r\n\r\n")
        assert failures(shell.socket.frames()) == [(0, ErrorCode.PROTOCOL_ERROR)]
        assert (shell.socket.is_closed, shell.socket.is_aborted) == (True, False)
        assert "preface" in shell.transport.lost_reason

    shells(scenario)


def test_a_lost_socket_ends_the_streams_and_is_reported_once() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        shell.transport.data_received(headers(1))
        (stream,) = shell.transport.connection.streams.values()
        shell.transport.connection_lost(ConnectionResetError("reset by peer"))
        assert stream.receiver.reset_code == ErrorCode.CONNECT_ERROR  # type: ignore[attr-defined]
        assert shell.lost == [shell.transport]
        assert (shell.transport.is_lost, shell.transport.lost_reason) == (True, "reset by peer")
        shell.transport.close("late")
        shell.transport.abort("late")
        shell.transport._write()
        assert shell.transport.lost_reason == "reset by peer"

    shells(scenario)


def test_a_drain_closes_the_socket_once_the_peer_knows_and_the_streams_have_ended() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        transport, socket = shell.transport, shell.socket
        with shell.turn():
            transport.data_received(headers(1))
            transport.drain()
        frames = socket.frames()
        assert [each.kind for each in frames] == [wire.GOAWAY, wire.PING]
        transport.data_received(headers(3) + wire.ping_frame(frames[1].payload, wire.ACK))
        assert wire.read_goaway(socket.frames()[0].payload)[0] == 3
        transport.data_received(data(1, ends=True))
        assert not socket.is_closed
        transport.data_received(data(3, ends=True))
        assert (socket.is_closed, transport.lost_reason) == (True, "drained")

    shells(scenario)


def test_a_drain_closes_the_socket_when_the_last_stream_is_cancelled() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        shell.transport.data_received(headers(1))
        with shell.turn():
            shell.transport.drain()
        shell.transport.data_received(wire.ping_frame(shell.socket.frames()[1].payload, wire.ACK))
        assert not shell.socket.is_closed
        shell.transport.data_received(wire.rst_stream_frame(1, ErrorCode.CANCEL))
        assert (shell.socket.is_closed, shell.transport.lost_reason) == (True, "drained")

    shells(scenario)


def test_a_drain_waits_for_the_rest_of_a_request_that_was_answered_early() -> None:
    """The system resets a connection that is closed while bytes come, and its peer may lose the answer."""

    def scenario() -> None:
        shell = Shell()
        shell.greet()
        transport, socket = shell.transport, shell.socket
        transport.data_received(headers(1))
        stream = transport.connection.streams[1]
        with shell.turn():
            stream.may_linger = True
            stream.connection.send_response(stream, encode_fields([(b":status", b"413")]), b"")
            transport.drain()
        transport.data_received(wire.ping_frame(socket.frames()[2].payload, wire.ACK) + data(1, b"more"))
        assert not socket.is_closed
        transport.data_received(data(1, ends=True))
        assert (socket.is_closed, transport.lost_reason) == (True, "drained")

    shells(scenario)


def test_a_client_closes_its_socket_when_the_server_drains_and_no_stream_is_left() -> None:
    def scenario() -> None:
        shell = ClientShell()
        client, socket = shell.transport, shell.socket
        client.data_received(settings())
        exchange = Exchange(lambda exchange: None)
        with shell.turn():
            exchange.stream = client.connection.open(b"\x83", exchange)
            client.connection.outbox.end(exchange.stream)
        client.data_received(wire.goaway_frame(2**31 - 1, ErrorCode.NO_ERROR))
        assert not socket.is_closed
        client.data_received(headers(1, RESPONSE, ends=True))
        assert exchange.is_complete
        assert (socket.is_closed, client.lost_reason) == (True, "drained")

    shells(scenario)


# ---- Upkeep ----------------------------------------------------------------------------------------------------------


def look(shell: Shell, seconds: float, policy: UpkeepPolicy = POLICY) -> None:
    """Look every second."""
    for _ in range(int(seconds)):
        shell.clock.advance(1)
        with shell.turn():
            shell.transport.look_after(policy, shell.clock())


def test_a_silent_peer_gets_a_ping_and_is_given_up() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        shell.transport.data_received(headers(1))
        look(shell, 61)
        assert [each.kind for each in shell.socket.frames()] == [wire.PING]
        look(shell, 21)
        assert shell.socket.is_aborted
        assert "keepalive" in shell.transport.lost_reason

    shells(scenario)


def test_a_peer_that_does_not_finish_its_greeting_is_ended() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.transport.data_received(wire.PREFACE[:10])
        look(shell, 11)
        assert failures(shell.socket.frames()) == [(0, ErrorCode.ENHANCE_YOUR_CALM)]
        assert shell.socket.is_closed

    shells(scenario)


@pytest.mark.parametrize(
    ("policy", "seconds"), [(UpkeepPolicy(idle_timeout_s=30), 31), (UpkeepPolicy(age_max_s=50), 51)]
)
def test_idle_and_old_connections_are_drained(policy: UpkeepPolicy, seconds: int) -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        look(shell, seconds - 2, policy)
        assert not shell.socket.frames()
        look(shell, 2, policy)
        assert [each.kind for each in shell.socket.frames()] == [wire.GOAWAY, wire.PING]
        look(shell, 2, policy)
        assert (shell.socket.is_closed, shell.transport.lost_reason) == (True, "drained")

    shells(scenario)


def test_a_drain_ends_streams_that_do_not() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        shell.transport.data_received(headers(1))
        shell.transport.drain()
        look(shell, 5)
        assert not shell.socket.is_closed
        look(shell, 30)
        assert (shell.socket.is_aborted, shell.transport.lost_reason) == (True, "the time for draining is over")

    shells(scenario)


def test_a_peer_that_reads_nothing_is_ended() -> None:
    def scenario() -> None:
        shell = Shell()
        shell.greet()
        shell.transport.pause_writing()
        look(shell, 61)
        assert (shell.socket.is_aborted, shell.transport.lost_reason) == (True, "the peer did not read")

    shells(scenario)


# ---- Sets ------------------------------------------------------------------------------------------------------------


def test_a_set_looks_as_long_as_it_is_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_INTERVAL_S", 0.001)

    async def scenario() -> None:
        clock = FakeClock()
        transports = TransportSet(POLICY, clock)
        shell = Shell(clock=clock)
        transports.add(shell.transport)
        assert (len(transports), list(transports)) == (1, [shell.transport])
        await until(lambda: clock.advance(6) or shell.socket.is_closed, "the peer is given up")
        transports.discard(shell.transport)
        transports.discard(shell.transport)
        assert transports._timer is None
        transports.add(Shell(clock=clock).transport)
        assert transports._timer is not None

    shells(scenario)


def test_a_look_that_fails_does_not_end_the_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_INTERVAL_S", 0.001)

    async def scenario() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        transports = TransportSet(POLICY, FakeClock())
        shell = Shell()
        looks: list[float] = []

        def fail(policy: UpkeepPolicy, now_s: float) -> None:
            looks.append(now_s)
            raise RuntimeError("a bug")

        shell.transport.look_after = fail  # type: ignore[method-assign]
        transports.add(shell.transport)
        await until(lambda: len(looks) > 3, "it is looked at again")
        assert {str(each["exception"]) for each in reported} == {"a bug"}
        assert transports._timer is not None

    shells(scenario)


def test_a_transport_that_is_lost_is_not_added() -> None:
    """Its `on_lost` has been called: it would stay for good."""

    async def scenario() -> None:
        shell = Shell()
        shell.transport.connection_lost(None)
        transports = TransportSet(POLICY)
        transports.add(shell.transport)
        assert (len(transports), transports._timer) == (0, None)

    shells(scenario)
