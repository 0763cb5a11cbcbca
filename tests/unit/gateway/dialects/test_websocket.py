"""WebSockets between a client, which the library speaks for, and a replica in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from gateway.dialects.web_target import WebOptions
from gateway.requests.exchange import BrokenBy
from gateway.websockets.websocket_connection import WebSocketConnection
from mesh.exceptions import BackPressureError, CancelReason, MeshException, ReplicaUnavailableError
from mesh.http2.limits import BufferBudget, BufferShare
from mesh.settings import settings
from mesh.v1 import web_pb2
from mesh.wire.outcome import Outcome, failed, failed_in_user_code
from mesh.wire.web_messages import (
    decode_request,
    decode_websocket_event,
    encode_accept,
    encode_close,
    encode_message,
)
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item, on_io_loop, until
from tests.unit.gateway.web_ends import WebEnds, WebExchange, websocket_request

DEFLATE = "permessage-deflate; client_max_window_bits"
KIB = 1024


class Socket:
    """A WebSocket whose handshake has arrived, with its client and its replica."""

    def __init__(self, credit: int = 100, share: BufferShare | None = None, **headers: str) -> None:
        self.ends = WebEnds(FakeRouter(lambda call: allow(call, credit)), WebOptions(timeout_s=5.0), shop="/shop")
        self.exchange = WebExchange(websocket_request("/shop/chat", **headers))
        self.exchange.share = share or self.exchange.share
        self.exchange.accept(self.ends.websockets.open(self.exchange), is_complete=False)
        self.client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self._seen = 0

    def accept(self, subprotocol: str | None = None, *headers: tuple[bytes, bytes]) -> Socket:
        item(self.ends.call, encode_accept(subprotocol, headers))
        extensions = self.exchange.field("sec-websocket-extensions")
        if extensions:
            factory = ClientPerMessageDeflateFactory()
            parameters = [(part.strip(), None) for part in extensions.split(";")[1:]]
            self.client.extensions = [factory.process_response_params(parameters, [])]
        return self

    @property
    def connection(self) -> WebSocketConnection:
        assert isinstance(self.exchange.receiver, WebSocketConnection)
        return self.exchange.receiver

    def client_sends(self, *calls: Callable[[Protocol], None]) -> None:
        for call in calls:
            call(self.client)
        for data in self.client.data_to_send():
            if data and not self.exchange.has_ended:
                self.exchange.receiver.on_body(data)

    @property
    def client_frames(self) -> list[Frame]:
        """What the client has received since the last time."""
        pieces = self.exchange.pieces[self._seen :]
        self._seen += len(pieces)
        for piece in pieces:
            self.client.receive_data(piece)
        return [event for event in self.client.events_received() if isinstance(event, Frame)]

    @property
    def replica_events(self) -> list[web_pb2.WebSocketEvent]:
        """What the replica has received behind the request."""
        return [decode_websocket_event(data) for data in self.ends.router.link.items[1:]]


def text(data: str) -> Callable[[Protocol], None]:
    return lambda client: client.send_text(data.encode())


@pytest.fixture(autouse=True)
def on_a_loop() -> Iterator[None]:
    """The keeper of sockets starts a timer."""
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)
    yield
    asyncio._set_running_loop(None)
    loop.close()


# ---- Handshake -------------------------------------------------------------------------------------------------------


def test_the_handshake_goes_to_the_application_without_a_deadline() -> None:
    """The handshake goes to the application without a deadline (items 111, 204)."""
    socket = Socket(sec_websocket_protocol="chat, v2", x_request_id="r1")
    call = socket.ends.call
    assert (call.request.streams_request, call.request.streams_response, call.request.deadline_at_s) == (
        True,
        True,
        None,
    )
    request = decode_request(socket.ends.router.link.items[0])
    assert (request.is_websocket, request.scheme, list(request.subprotocols)) == (True, "ws", ["chat", "v2"])
    assert (request.raw_path, request.root_path) == (b"/shop/chat", "/shop")
    assert not socket.exchange.has_sent_head
    assert repr(socket.connection) == "<WebSocketConnection handshake, waiting: 0 messages, 0 bytes>"
    socket.accept("v2", (b"x-extra", b"1"))
    assert repr(socket.connection) == "<WebSocketConnection open, waiting: 0 messages, 0 bytes>"
    exchange = socket.exchange
    assert exchange.is_tunnel
    assert (exchange.field("sec-websocket-protocol"), exchange.field("x-extra")) == ("v2", "1")
    assert exchange.field("x-request-id") == "r1"
    assert socket.ends.metrics.websockets == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_key": "short"}, 400),
        ({"sec_websocket_key": "not base64!"}, 400),
        ({"sec_websocket_protocol": "a, , (b)"}, 400),
        ({"sec_websocket_extensions": "permessage-deflate; ="}, 400),
    ],
)
def test_a_wrong_handshake_makes_no_call(headers: dict[str, str], status: int) -> None:
    ends = WebEnds()
    exchange = ends.open_websocket(websocket_request(**headers))
    assert exchange.status == status
    assert ends.router.calls == []
    assert exchange.field("sec-websocket-version") == ("13" if status == 426 else None)
    assert ends.count("shop", "/", "WS", str(status)) == 1
    ends.assert_idle()


def test_a_socket_that_no_application_serves_is_not_found() -> None:
    """A socket that no application serves is not found (item 203)."""
    ends = WebEnds(shop="/shop")
    assert ends.open_websocket(websocket_request("/else")).status == 404
    assert ends.count("other", "other", "WS", "404") == 1


def test_an_application_that_closes_at_once_refuses() -> None:
    """An application that closes at once refuses (item 111)."""
    socket = Socket()
    item(socket.ends.call, encode_close(1000))
    assert socket.exchange.status == 403
    assert socket.ends.count("shop", "/shop", "WS", "403") == 1
    socket.ends.assert_idle()


def test_an_application_that_ends_without_a_word_refuses() -> None:
    socket = Socket()
    finish(socket.ends.call, Outcome())
    assert socket.exchange.status == 403
    socket.ends.assert_idle()


def test_an_application_may_answer_as_it_likes_instead() -> None:
    socket = Socket()
    response = web_pb2.WebResponse(status=401, headers=[b"www-authenticate", b"Bearer"], body=b"who?")
    item(socket.ends.call, web_pb2.WebSocketEvent(deny=response).SerializeToString())
    assert (socket.exchange.status, socket.exchange.body) == (401, b"who?")
    finish(socket.ends.call, Outcome())
    assert socket.ends.count("shop", "/shop", "WS", "401") == 1
    socket.ends.assert_idle()


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (failed(BackPressureError(num_queued_requests=1, max_queued_requests=1)), 503),
        (failed_in_user_code(ValueError("x")), 500),
    ],
)
def test_a_call_that_fails_before_it_accepts_has_the_status_of_a_request(outcome: Outcome, status: int) -> None:
    """A call that fails before it accepts has the status of a request (item 144)."""
    socket = Socket()
    finish(socket.ends.call, outcome)
    assert socket.exchange.status == status
    socket.ends.assert_idle()


@pytest.mark.parametrize(
    "event",
    [encode_accept("a\r\nb", []), encode_accept(None, [(b"x", b"a\r\nb: c")]), encode_message("early"), b"\xff"],
)
def test_a_wrong_event_ends_the_handshake(event: bytes) -> None:
    socket = Socket()
    item(socket.ends.call, event)
    assert (socket.exchange.status, socket.exchange.has_ended) == (500, True)
    socket.ends.assert_idle()


# ---- Messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", [{}, {"sec_websocket_extensions": DEFLATE}])
@pytest.mark.parametrize("size", [0, 5, 3_000, 70_000, 300_000])
def test_text_and_binary_messages_pass_both_ways(extensions: dict[str, str], size: int) -> None:
    """Text and binary messages pass both ways (item 111)."""
    socket = Socket(**extensions).accept()
    words, data = "ü" * (size // 2), os.urandom(size // 2) + b"a" * (size // 2)
    socket.client_sends(text(words), lambda client: client.send_binary(data))
    assert [(event.text, event.binary) for event in socket.replica_events] == [(words, b""), ("", data)]
    item(socket.ends.call, encode_message(words))
    item(socket.ends.call, encode_message(data))
    first, second = socket.client_frames
    assert (first.opcode, bytes(first.data).decode()) == (Opcode.TEXT, words)
    assert (second.opcode, bytes(second.data)) == (Opcode.BINARY, data)
    if extensions and 1 * KIB <= size <= 64 * KIB:
        assert len(socket.exchange.pieces[0]) < size // 4


def test_fragments_become_one_message() -> None:
    socket = Socket().accept()
    socket.client_sends(
        lambda client: client.send_text("ü".encode()[:1], fin=False),
        lambda client: client.send_ping(b"between"),
        lambda client: client.send_continuation("ü".encode()[1:], fin=True),
    )
    assert [event.text for event in socket.replica_events] == ["ü"]
    [pong] = socket.client_frames
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"between")


def test_messages_wait_at_the_client_while_the_replica_has_no_credit() -> None:
    socket = Socket(credit=2).accept()
    socket.client_sends(text("a"), text("b"), text("c"))
    assert [event.text for event in socket.replica_events] == ["a"]
    assert socket.exchange.given_room == 7
    assert socket.exchange.share.used_bytes == 2
    allow(socket.ends.call, 10)
    assert [event.text for event in socket.replica_events] == ["a", "b", "c"]
    assert socket.exchange.given_room == 3 * 7
    assert socket.exchange.share.used_bytes == 0


def test_credit_is_granted_when_the_client_has_what_was_sent() -> None:
    socket = Socket().accept()
    socket.exchange.is_blocked = True
    for _ in range(200):
        item(socket.ends.call, encode_message("x"))
    assert socket.ends.router.link.granted == []
    socket.exchange.unblock()
    assert sum(socket.ends.router.link.granted) == 201


def test_messages_without_room_end_the_socket() -> None:
    socket = Socket().accept()
    socket.exchange.is_blocked, socket.exchange.has_room = True, False
    item(socket.ends.call, encode_message("x"))
    assert socket.exchange.is_aborted
    assert len(socket.ends.router.cancelled) == 1
    socket.ends.assert_idle()


def test_what_is_kept_of_a_message_is_counted_and_limited() -> None:
    share = BufferShare(BufferBudget(64 * KIB))
    socket = Socket(share=share).accept()
    socket.client_sends(lambda client: client.send_binary(bytes(20 * KIB), fin=False))
    assert share.used_bytes == 20 * KIB
    assert socket.exchange.given_room > 20 * KIB
    socket.client_sends(lambda client: client.send_continuation(bytes(20 * KIB), fin=False))
    [close] = socket.client_frames
    assert (close.opcode, close.data[:2]) == (Opcode.CLOSE, (1013).to_bytes(2, "big"))
    assert socket.exchange.has_ended
    assert share.used_bytes == 0


@pytest.mark.parametrize("extensions", [{}, {"sec_websocket_extensions": DEFLATE}])
def test_a_message_that_is_too_large_closes_the_socket(extensions: dict[str, str]) -> None:
    """Also one that is large only once it is decompressed."""
    socket = Socket(**extensions).accept()
    limit = settings().gateway.websocket_message_max_bytes
    socket.client_sends(lambda client: client.send_binary(bytes(limit + 1)))
    [close] = socket.client_frames
    assert close.data[:2] == (1009).to_bytes(2, "big")
    assert socket.exchange.has_ended
    assert [event.close.code for event in socket.replica_events] == [1009]


def test_a_compressed_frame_has_a_limit_of_its_own() -> None:
    """It costs the time of what it becomes, and next to nothing to send."""
    socket = Socket(sec_websocket_extensions=DEFLATE).accept()
    limit = settings().gateway.websocket_decompressed_max_bytes
    socket.client_sends(lambda client: client.send_binary(bytes(limit)))
    assert not socket.client_frames
    socket.client_sends(lambda client: client.send_binary(bytes(limit + 1)))
    [close] = socket.client_frames
    assert close.data[:2] == (1009).to_bytes(2, "big")


def test_a_bomb_in_fragments_is_found_in_time() -> None:
    socket = Socket(sec_websocket_extensions=DEFLATE).accept()
    limit = settings().gateway.websocket_message_max_bytes
    socket.client_sends(lambda client: client.send_binary(bytes(limit), fin=False))
    socket.client_sends(lambda client: client.send_continuation(bytes(64 * limit), fin=True))
    [close] = socket.client_frames
    assert close.data[:2] == (1009).to_bytes(2, "big")
    assert socket.exchange.share.used_bytes == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007),
        (Frame(Opcode.TEXT, b"x").serialize(mask=False), 1002),
        (Frame(Opcode.CONT, b"x").serialize(mask=True), 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (Frame(Opcode.CLOSE, b"\x03").serialize(mask=True), 1002),
        (Frame(Opcode.CLOSE, (1006).to_bytes(2, "big")).serialize(mask=True), 1002),
        (Frame(Opcode.TEXT, b"\xff").serialize(mask=True) + Frame(Opcode.CLOSE, b"").serialize(mask=True), 1005),
    ],
    ids=["text", "unmasked", "continuation", "reserved bit", "opcode", "short close", "close code", "text and close"],
)
def test_wrong_frames_close_the_socket_with_the_code_for_it(data: bytes, code: int) -> None:
    socket = Socket().accept()
    socket.exchange.receiver.on_body(data)
    assert socket.exchange.has_ended
    assert [event.close.code for event in socket.replica_events] == [code]
    assert socket.ends.router.link.half_closed == 1


# ---- Close -----------------------------------------------------------------------------------------------------------


def test_a_client_that_closes_is_answered_and_its_application_hears_of_it() -> None:
    """A client that closes is answered and its application hears of it (item 111)."""
    socket = Socket().accept()
    socket.client_sends(text("last"), lambda client: client.send_close(4001, "bye"))
    [close] = socket.client_frames
    assert (close.opcode, close.data[:2]) == (Opcode.CLOSE, (4001).to_bytes(2, "big"))
    assert socket.exchange.has_ended
    last, closed = socket.replica_events
    assert (last.text, closed.close.code, closed.close.reason) == ("last", 4001, "bye")
    assert socket.ends.router.link.half_closed == 1
    assert socket.ends.metrics.websockets == 0
    finish(socket.ends.call, Outcome())
    assert socket.ends.count("shop", "/shop", "WS", "101") == 1
    assert socket.ends.latencies("shop", "/shop", "WS") == 0
    socket.ends.assert_idle()


@pytest.mark.parametrize(("code", "sent"), [(1000, 1000), (4000, 4000), (1005, 1000), (1006, 1011), (7, 1011)])
def test_an_application_closes_with_its_code(code: int, sent: int) -> None:
    """An application closes with its code (item 111)."""
    socket = Socket().accept()
    item(socket.ends.call, encode_close(code, "because " + "ü" * 100))
    finish(socket.ends.call, Outcome())
    [close] = socket.client_frames
    assert close.data[:2] == sent.to_bytes(2, "big")
    assert bytes(close.data[2:]).decode().startswith("because ü")
    assert not socket.exchange.has_ended
    socket.client_sends()
    assert socket.exchange.has_ended
    socket.ends.assert_idle()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(), 1000),
        (failed_in_user_code(ValueError("x")), 1011),
        (failed(ReplicaUnavailableError("r1")), 1012),
        (failed(BackPressureError(num_queued_requests=1, max_queued_requests=1)), 1013),
        (failed(MeshException("x")), 1011),
    ],
)
def test_the_end_of_the_call_closes_the_socket(outcome: Outcome, code: int) -> None:
    """The end of the call closes the socket (item 111)."""
    socket = Socket().accept()
    finish(socket.ends.call, outcome)
    [close] = socket.client_frames
    assert close.data[:2] == code.to_bytes(2, "big")


def test_messages_behind_the_close_of_the_application_are_dropped() -> None:
    socket = Socket().accept()
    item(socket.ends.call, encode_close(1000))
    item(socket.ends.call, encode_message("too late"))
    assert [frame.opcode for frame in socket.client_frames] == [Opcode.CLOSE]


@pytest.mark.parametrize("is_abrupt", [False, True])
def test_a_connection_that_breaks_ends_without_a_close(is_abrupt: bool) -> None:
    """The application learns that nothing more comes (items 111, 207)."""
    socket = Socket().accept()
    if is_abrupt:
        socket.exchange.break_by(BrokenBy.CLIENT)
    else:
        socket.exchange.receiver.on_end()
    assert socket.replica_events == []
    assert socket.ends.router.link.half_closed == 1
    assert socket.exchange.has_ended
    assert socket.ends.metrics.websockets == 0


def test_a_client_that_leaves_before_it_is_accepted_cancels_the_call() -> None:
    """A client that leaves before it is accepted cancels the call (item 207)."""
    socket = Socket()
    socket.exchange.break_by(BrokenBy.CLIENT)
    assert socket.ends.router.cancel_reasons == [CancelReason.CLIENT]
    assert socket.ends.count("shop", "/shop", "WS", "499") == 1
    socket.ends.assert_idle()


def test_all_sockets_close_when_the_gateway_drains() -> None:
    socket = Socket().accept()
    socket.ends.websockets.drain()
    [close] = socket.client_frames
    assert close.data[:2] == (1012).to_bytes(2, "big")
    socket.client_sends()
    assert [event.close.code for event in socket.replica_events] == [1012]
    assert socket.exchange.has_ended


def test_compressed_messages_that_become_large_are_read_in_turns() -> None:
    """A read of some KB may hold hundreds of MB, which would keep the loop from all other clients."""
    asyncio._set_running_loop(None)

    async def scenario() -> None:
        socket = Socket(credit=100_000, sec_websocket_extensions=DEFLATE).accept()
        for _ in range(8):
            socket.client.send_binary(bytes(4 * KIB * KIB))
        data = b"".join(socket.client.data_to_send())
        assert len(data) < 64 * KIB
        socket.exchange.receiver.on_body(data)
        sent = socket.ends.router.link.items
        assert len(sent) < 3
        assert not socket.exchange.given_room
        await until(lambda: len(sent) == 9, "the request and all messages")
        assert socket.exchange.given_room == len(data)
        assert not socket.exchange.share.used_bytes

    on_io_loop(scenario())


def test_large_messages_that_wait_are_not_joined_by_more_of_them() -> None:
    asyncio._set_running_loop(None)

    async def scenario() -> None:
        socket = Socket(credit=1, sec_websocket_extensions=DEFLATE).accept()
        for _ in range(8):
            socket.client.send_binary(bytes(4 * KIB * KIB))
        socket.exchange.receiver.on_body(b"".join(socket.client.data_to_send()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert socket.exchange.share.used_bytes < 9 * KIB * KIB
        allow(socket.ends.call, 100_000)
        await until(lambda: len(socket.ends.router.link.items) == 9, "all messages")

    on_io_loop(scenario())


def test_very_many_tiny_frames_are_read_in_turns() -> None:
    asyncio._set_running_loop(None)

    async def scenario() -> None:
        socket = Socket(credit=100_000).accept()
        for _ in range(20_000):
            socket.client.send_binary(b"")
        socket.exchange.receiver.on_body(b"".join(socket.client.data_to_send()))
        sent = socket.ends.router.link.items
        assert len(sent) < 15_000
        await until(lambda: len(sent) == 20_001, "the request and all messages")

    on_io_loop(scenario())


def test_what_waits_is_dropped_when_the_application_closes() -> None:
    """The application takes none of it any more, and what the client answers has to be read."""
    socket = Socket(credit=1).accept()
    socket.client_sends(text("a" * 10_000))
    assert (socket.exchange.given_room, socket.exchange.share.used_bytes) == (0, 10_000)
    item(socket.ends.call, encode_close(1000))
    assert socket.exchange.given_room > 10_000
    assert socket.exchange.share.used_bytes == 0
    socket.client_sends(text("b"))
    assert socket.exchange.share.used_bytes == 0
    assert socket.replica_events == []


def test_what_a_client_sends_before_it_is_accepted_counts_as_buffered() -> None:
    socket = Socket(share=BufferShare(BufferBudget(2_000)))
    socket.exchange.receiver.on_body(b"x" * 900)
    assert socket.exchange.share.used_bytes == 900
    socket.exchange.receiver.on_body(b"x" * 200)
    assert socket.exchange.is_aborted
    assert not socket.exchange.share.used_bytes
    socket.ends.assert_idle()


# ---- Time ------------------------------------------------------------------------------------------------------------


def test_a_silent_client_is_pinged_and_given_up_if_it_does_not_answer() -> None:
    socket, limits = Socket().accept(), settings().gateway
    now_s = 1_000.0
    socket.connection.tick(now_s)
    socket.connection.tick(now_s := now_s + limits.websocket_ping_interval_s - 1)
    assert socket.client_frames == []
    socket.connection.tick(now_s := now_s + 1)
    assert [frame.opcode for frame in socket.client_frames] == [Opcode.PING]
    socket.client_sends()
    socket.connection.tick(now_s := now_s + limits.websocket_ping_timeout_s)
    assert not socket.exchange.has_ended
    socket.connection.tick(now_s := now_s + limits.websocket_ping_interval_s)
    socket.connection.tick(now_s + limits.websocket_ping_timeout_s)
    assert socket.exchange.is_aborted
    assert socket.ends.router.link.half_closed == 1


def test_a_client_that_is_held_back_is_pinged_and_not_given_up() -> None:
    """Its answers stand behind messages that the replica does not take."""
    socket, limits = Socket(credit=1).accept(), settings().gateway
    socket.client_sends(text("waits"))
    now_s = 1_000.0
    socket.connection.tick(now_s)
    for _ in range(3):
        socket.connection.tick(now_s := now_s + limits.websocket_ping_interval_s)
        assert [frame.opcode for frame in socket.client_frames] == [Opcode.PING]
        socket.connection.tick(now_s := now_s + limits.websocket_ping_timeout_s)
    assert not socket.exchange.has_ended
    allow(socket.ends.call, 10)
    socket.connection.tick(now_s := now_s + limits.websocket_ping_interval_s)
    socket.connection.tick(now_s + limits.websocket_ping_timeout_s)
    assert socket.exchange.is_aborted


def test_a_client_that_does_not_answer_a_close_is_given_up() -> None:
    socket, limits = Socket().accept(), settings().gateway
    item(socket.ends.call, encode_close(1000))
    socket.connection.tick(1_000.0)
    socket.connection.tick(1_000.0 + limits.websocket_close_timeout_s - 1)
    assert not socket.exchange.has_ended
    socket.connection.tick(1_000.0 + limits.websocket_close_timeout_s)
    assert socket.exchange.is_aborted
    assert socket.ends.metrics.websockets == 0


def test_a_client_that_reads_no_answers_to_its_pings_gets_only_the_last() -> None:
    socket = Socket().accept()
    socket.exchange.is_blocked = True
    for number in range(50):
        socket.client.send_ping(b"%d" % number)
    data = b"".join(socket.client.data_to_send())
    socket.exchange.receiver.on_body(data)
    assert [bytes(frame.data) for frame in socket.client_frames] == [b"49"]


def test_an_application_that_ignores_the_close_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that ignores the close is cancelled (item 207)."""
    asyncio._set_running_loop(None)
    monkeypatch.setattr("gateway.dialects.websocket._close_timeout_s", lambda: 0.01)

    async def scenario() -> list[CancelReason]:
        socket = Socket().accept()
        socket.client_sends(lambda client: client.send_close(1000))
        assert socket.ends.router.cancelled == []
        await until(lambda: socket.ends.router.cancelled, "the cancel")
        socket.ends.assert_idle()
        return socket.ends.router.cancel_reasons

    assert on_io_loop(scenario()) == [CancelReason.CLIENT]
