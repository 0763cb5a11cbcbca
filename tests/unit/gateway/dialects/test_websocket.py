"""WebSockets between a client and a replica in memory: messages both ways, and how a socket closes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol

from gateway.requests.exchange import BrokenBy
from mesh.exceptions import BackPressureError, MeshException, ReplicaUnavailableError
from mesh.wire.outcome import Outcome, failed, failed_in_user_code
from mesh.wire.web_messages import encode_close, encode_message
from tests.unit.gateway.dialects.socket_ends import Socket
from tests.unit.gateway.fakes import allow, finish, item

pytestmark = pytest.mark.usefixtures("on_a_loop")

DEFLATE = "permessage-deflate; client_max_window_bits"
KIB = 1024


def text(data: str) -> Callable[[Protocol], None]:
    return lambda client: client.send_text(data.encode())


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


def test_all_sockets_close_when_the_gateway_drains() -> None:
    socket = Socket().accept()
    socket.ends.websockets.drain()
    [close] = socket.client_frames
    assert close.data[:2] == (1012).to_bytes(2, "big")
    socket.client_sends()
    assert [event.close.code for event in socket.replica_events] == [1012]
    assert socket.exchange.has_ended
