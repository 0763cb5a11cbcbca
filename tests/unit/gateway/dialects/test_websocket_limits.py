"""Limits of WebSockets: sizes of messages, what waits, turns of the loop, and clients that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from websockets.frames import Opcode
from websockets.protocol import Protocol

from gateway.requests.exchange import BrokenBy
from mesh.exceptions import CancelReason
from mesh.http2.limits import BufferBudget, BufferShare
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.web_messages import encode_close, encode_message
from tests.unit.gateway.dialects.socket_ends import Socket
from tests.unit.gateway.fakes import allow, finish, item, on_io_loop, until

pytestmark = pytest.mark.usefixtures("on_a_loop")

DEFLATE = "permessage-deflate; client_max_window_bits"
KIB = 1024


def text(data: str) -> Callable[[Protocol], None]:
    return lambda client: client.send_text(data.encode())


# ---- Sizes -----------------------------------------------------------------------------------------------------------


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


# ---- Turns of the loop -----------------------------------------------------------------------------------------------


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
        assert len(sent) < 900
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


# ---- Clients that have left ------------------------------------------------------------------------------------------


def test_messages_that_wait_for_the_replica_count_until_it_has_taken_them() -> None:
    """Also when their client has closed and left, which frees no memory."""
    share = BufferShare(BufferBudget(64 * KIB))
    socket = Socket(credit=1, share=share).accept()
    socket.client_sends(text("a" * 10_000), text("b" * 5_000), lambda client: client.send_close(1000))
    assert socket.exchange.has_ended
    assert share.used_bytes == 15_000
    allow(socket.ends.call, 1)
    assert share.used_bytes == 5_000
    allow(socket.ends.call, 2)
    assert share.used_bytes == 0
    assert [event.WhichOneof("kind") for event in socket.replica_events] == ["text", "text", "close"]


def test_a_text_counts_as_the_memory_that_it_takes() -> None:
    share = BufferShare(BufferBudget(256 * KIB))
    socket = Socket(credit=1, share=share).accept()
    socket.client_sends(text("a" * 10_000 + "\N{GRINNING FACE}"))
    assert 40_000 < share.used_bytes < 41_000
    allow(socket.ends.call, 1)
    assert share.used_bytes == 0
    socket.client_sends(lambda client: client.send_close(1000))
    assert share.used_bytes == 0


def test_messages_that_no_replica_takes_any_more_do_not_count() -> None:
    share = BufferShare(BufferBudget(64 * KIB))
    socket = Socket(credit=1, share=share).accept()
    socket.client_sends(text("a" * 10_000), lambda client: client.send_close(1000))
    assert share.used_bytes == 10_000
    finish(socket.ends.call, Outcome())
    assert share.used_bytes == 0


def test_compressed_messages_are_read_in_turns_behind_the_end_of_their_client() -> None:
    """They may become much, and the last of them may be a close."""
    asyncio._set_running_loop(None)

    async def scenario() -> None:
        socket = Socket(credit=1, sec_websocket_extensions=DEFLATE).accept()
        for _ in range(8):
            socket.client.send_binary(bytes(4 * KIB * KIB))
        socket.client.send_close(1001)
        connection = socket.connection
        socket.exchange.receiver.on_body(b"".join(socket.client.data_to_send()))
        socket.exchange.break_by(BrokenBy.CLIENT)
        for _ in range(20):
            await asyncio.sleep(0)
        assert 0 < socket.exchange.share.used_bytes < 9 * KIB * KIB
        assert not connection.has_closed
        allow(socket.ends.call, 100_000)
        await until(lambda: connection.has_closed, "all is read")
        assert [len(event.binary) for event in socket.replica_events[:-1]] == [4 * KIB * KIB] * 8
        assert socket.replica_events[-1].close.code == 1001
        assert socket.exchange.share.used_bytes == 0

    on_io_loop(scenario())


def test_very_many_tiny_frames_are_read_in_turns_behind_the_end_of_their_client() -> None:
    asyncio._set_running_loop(None)

    async def scenario() -> None:
        socket = Socket(credit=1).accept()
        for _ in range(20_000):
            socket.client.send_binary(b"a")
        socket.client.send_close(1001)
        connection = socket.connection
        socket.exchange.receiver.on_body(b"".join(socket.client.data_to_send()))
        socket.exchange.break_by(BrokenBy.CLIENT)
        assert not connection.has_closed
        await until(lambda: connection.has_closed, "all is read, though the replica takes none of it")
        assert socket.exchange.share.used_bytes == 20_000
        allow(socket.ends.call, 100_000)
        assert [event.binary for event in socket.replica_events[:-1]] == [b"a"] * 20_000
        assert socket.replica_events[-1].close.code == 1001
        assert socket.exchange.share.used_bytes == 0

    on_io_loop(scenario())


@pytest.mark.parametrize("ends_by", ["time", "the call", "a drain"])
def test_what_is_left_of_a_client_does_not_wait_without_end(ends_by: str) -> None:
    asyncio._set_running_loop(None)

    async def scenario() -> None:
        socket, limits = Socket(credit=1, sec_websocket_extensions=DEFLATE).accept(), settings().gateway
        for _ in range(8):
            socket.client.send_binary(bytes(4 * KIB * KIB))
        connection = socket.connection
        socket.exchange.receiver.on_body(b"".join(socket.client.data_to_send()))
        socket.exchange.break_by(BrokenBy.CLIENT)
        connection.tick(1_000.0)
        connection.tick(1_000.0 + limits.websocket_close_timeout_s - 1)
        assert not connection.has_closed
        if ends_by == "time":
            connection.tick(1_000.0 + limits.websocket_close_timeout_s)
            assert socket.ends.router.cancel_reasons == [CancelReason.CLIENT]
        elif ends_by == "the call":
            finish(socket.ends.call, Outcome())
        else:
            socket.ends.websockets.drain()
        assert connection.has_closed
        assert socket.exchange.share.used_bytes == 0
        assert socket.ends.metrics.websockets == 0

    on_io_loop(scenario())


# ---- Silent clients --------------------------------------------------------------------------------------------------


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
