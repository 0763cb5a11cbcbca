"""RFC 9113 as a table: frames about the connection, which mean the same to servers and clients."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Setting
from tests.unit.fakes.http2_ends import (
    PING,
    PONG,
    ClientEnd,
    End,
    Frame,
    ServerEnd,
    failures,
    frame,
    settings,
    window_update,
)

PROTOCOL = ErrorCode.PROTOCOL_ERROR
SIZE = ErrorCode.FRAME_SIZE_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR
SETTINGS_ACK = Frame(wire.SETTINGS, wire.ACK, 0, b"")

FATAL = [
    ("4.2", "SETTINGS above the largest frame", SIZE, frame(wire.SETTINGS, payload=bytes(6 * 2_731))),
    ("6.5", "an acknowledgement of SETTINGS with a payload", SIZE, frame(wire.SETTINGS, wire.ACK, 0, bytes(6))),
    ("6.5", "SETTINGS on a stream", PROTOCOL, frame(wire.SETTINGS, 0, 1, bytes(6))),
    ("6.5", "SETTINGS of 5 bytes", SIZE, frame(wire.SETTINGS, payload=bytes(5))),
    ("6.5.2", "ENABLE_PUSH of 2", PROTOCOL, settings((Setting.ENABLE_PUSH, 2))),
    ("6.5.2", "INITIAL_WINDOW_SIZE above 2^31-1", FLOW, settings((Setting.INITIAL_WINDOW_SIZE, 2**31))),
    ("6.5.2", "MAX_FRAME_SIZE below 2^14", PROTOCOL, settings((Setting.MAX_FRAME_SIZE, 2**14 - 1))),
    ("6.5.2", "MAX_FRAME_SIZE above 2^24-1", PROTOCOL, settings((Setting.MAX_FRAME_SIZE, 2**24))),
    ("6.6", "PUSH_PROMISE on stream 0", PROTOCOL, frame(wire.PUSH_PROMISE, 4, 0, bytes(5))),
    ("6.7", "PING on a stream", PROTOCOL, frame(wire.PING, 0, 1, bytes(8))),
    ("6.7", "PING of 6 bytes", SIZE, frame(wire.PING, payload=bytes(6))),
    ("6.7", "PING of 9 bytes", SIZE, frame(wire.PING, payload=bytes(9))),
    ("6.8", "GOAWAY on a stream", PROTOCOL, frame(wire.GOAWAY, 0, 1, bytes(8))),
    ("6.8", "GOAWAY of 7 bytes", SIZE, frame(wire.GOAWAY, payload=bytes(7))),
    ("6.9", "WINDOW_UPDATE of 0", PROTOCOL, window_update(0, 0)),
    ("6.9", "WINDOW_UPDATE of 3 bytes", SIZE, frame(wire.WINDOW_UPDATE, payload=bytes(3))),
    ("6.9", "WINDOW_UPDATE of 5 bytes", SIZE, frame(wire.WINDOW_UPDATE, 0, 0, bytes(5))),
    ("6.9.1", "the connection's window above 2^31-1", FLOW, window_update(0, 2**31 - 1) * 2),
    ("6.10", "CONTINUATION on stream 0", PROTOCOL, frame(wire.CONTINUATION, 4, 0, b"\x82")),
]
FINE = [
    ("4.1", "a frame of unknown type", frame(0x16, 0xFF, 7, b"12345678"), []),
    ("5.5", "a PRIORITY_UPDATE, which RFC 9218 adds", frame(0x10, 0, 0, b"\0\0\0\1u=1"), []),
    ("6.5", "empty SETTINGS", settings(), [SETTINGS_ACK]),
    ("6.5.2", "a parameter that is not known", settings((0x4242, 1), (9, 1)), [SETTINGS_ACK]),
    ("6.5.2", "ENABLE_PUSH of 0", settings((Setting.ENABLE_PUSH, 0)), [SETTINGS_ACK]),
    ("6.5.2", "every parameter", settings((1, 0), (3, 5), (4, 2**31 - 1), (5, 2**24 - 1), (6, 9)), [SETTINGS_ACK]),
    ("6.5.3", "SETTINGS twice", settings() * 2, [SETTINGS_ACK] * 2),
    ("6.5.3", "an acknowledgement of SETTINGS", frame(wire.SETTINGS, wire.ACK), []),
    ("6.7", "PING", PING, [PONG]),
    ("6.7", "an answer to PING is not answered", wire.ping_frame(b"8 bytes.", wire.ACK), []),
    ("6.8", "GOAWAY", wire.goaway_frame(0, ErrorCode.NO_ERROR, "bye"), []),
    (
        "6.8",
        "GOAWAY twice",
        wire.goaway_frame(2**31 - 1, ErrorCode.NO_ERROR) + wire.goaway_frame(1, ErrorCode.NO_ERROR),
        [],
    ),
    ("6.9", "WINDOW_UPDATE", window_update(0, 1_000), []),
    ("6.9", "WINDOW_UPDATE to the highest window", window_update(0, 2**31 - 1 - wire.WINDOW_DEFAULT), []),
    ("6.9", "the reserved bit of an increment", frame(wire.WINDOW_UPDATE, 0, 0, b"\x80\0\0\1"), []),
    ("7", "GOAWAY with an unknown error code", frame(wire.GOAWAY, payload=b"\0\0\0\0\0\0\xff\xff"), []),
]

both_roles = pytest.mark.parametrize("end", [ServerEnd, ClientEnd])
singly = pytest.mark.parametrize("receive", [End.receive, End.receive_singly], ids=["whole", "byte by byte"])


@both_roles
@singly
@pytest.mark.parametrize(("section", "title", "code", "sent"), FATAL)
def test_what_breaks_the_connection(
    end: Callable[[], End], receive: Callable[..., list[Frame]], section: str, title: str, code: ErrorCode, sent: bytes
) -> None:
    tested = end()
    assert failures(receive(tested, sent)) == [(0, code)]
    assert receive(tested, PING) == []


@both_roles
@singly
@pytest.mark.parametrize(("section", "title", "sent", "answer"), FINE)
def test_what_does_not(
    end: Callable[[], End],
    receive: Callable[..., list[Frame]],
    section: str,
    title: str,
    sent: bytes,
    answer: list[Frame],
) -> None:
    tested = end()
    assert receive(tested, sent, PING) == [*answer, PONG]
    assert tested.connection.fault is None


def test_the_last_stream_is_named_at_an_error() -> None:
    server = ServerEnd()
    goaway = server.receive(window_update(0, 0))[-1]
    assert wire.read_goaway(goaway.payload) == (0, PROTOCOL, "WINDOW_UPDATE of 0")
