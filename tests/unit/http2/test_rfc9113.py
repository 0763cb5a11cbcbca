"""RFC 9113 as a table: what a client may send, and what the server does about it. Includes the cases of h2spec."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Setting
from mesh.http2.hpack_encoder import encode_fields
from tests.unit.fakes.http2_ends import (
    PING,
    PONG,
    REQUEST,
    TRAILERS,
    ServerEnd,
    answered,
    data,
    echo,
    failures,
    frame,
    headers,
    padded,
    rst_stream,
    settings,
    window_update,
)

BLOCK = encode_fields(REQUEST)
PRIORITY = b"\0\0\0\0\x0f"
REQUIRED = dict(REQUEST)

PROTOCOL = ErrorCode.PROTOCOL_ERROR
CLOSED = ErrorCode.STREAM_CLOSED
SIZE = ErrorCode.FRAME_SIZE_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR


@dataclass(frozen=True)
class Case:
    """Bytes behind preface and SETTINGS, and what comes of them."""

    section: str
    title: str
    sent: bytes
    failures: tuple[tuple[int, ErrorCode], ...] = ()
    answers: tuple[int, ...] = ()


def fatal(section: str, title: str, code: ErrorCode, *sent: bytes) -> Case:
    """The connection ends with this code."""
    return Case(section, title, b"".join(sent), ((0, code),))


def broken(section: str, title: str, code: ErrorCode, *sent: bytes, stream_id: int = 1) -> Case:
    """The stream ends with this code, and the connection goes on."""
    return Case(section, title, b"".join(sent), ((stream_id, code),))


def fine(section: str, title: str, *sent: bytes, answers: tuple[int, ...] = ()) -> Case:
    """No error; these streams are answered."""
    return Case(section, title, b"".join(sent), (), answers)


def without(name: bytes) -> list[tuple[bytes, bytes]]:
    return [field for field in REQUEST if field[0] != name]


def with_field(name: bytes, value: bytes = b"x") -> list[tuple[bytes, bytes]]:
    return [*REQUEST, (name, value)]


CASES = [
    # ---- 4 Frames
    fine("4.1", "a frame of unknown type", frame(0x16, 0, 0, b"12345678")),
    fine("4.1", "a frame of unknown type on a stream", headers(1), frame(0xFF, 0xFF, 1, b"x"), data(1, ends=True)),
    fine("4.1", "flags that are not defined", frame(wire.PING, 0xFE, 0, bytes(8))),
    fine("4.1", "the reserved bit of a stream id", frame(wire.PING, 0, 0x8000_0000, bytes(8))),
    fine("4.2", "DATA of the largest size", headers(1), data(1, bytes(16_384), ends=True), answers=(1,)),
    fatal("4.2", "DATA above the largest size", SIZE, headers(1), data(1, bytes(16_385))),
    fatal("4.2", "HEADERS above the largest size", SIZE, frame(wire.HEADERS, 4, 1, BLOCK + bytes(16_384))),
    fatal("4.2", "only the header of a frame above the largest size", SIZE, b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
    fatal("4.3", "a block that cannot be decoded", ErrorCode.COMPRESSION_ERROR, frame(wire.HEADERS, 5, 1, b"\xff")),
    fatal(
        "4.3",
        "PRIORITY inside a header block",
        PROTOCOL,
        frame(wire.HEADERS, 1, 1, BLOCK[:5]),
        frame(2, 0, 1, PRIORITY),
    ),
    fatal(
        "4.3",
        "HEADERS of another stream inside a header block",
        PROTOCOL,
        frame(wire.HEADERS, 1, 1, BLOCK[:5]),
        headers(3),
    ),
    fatal(
        "4.3",
        "CONTINUATION of another stream",
        PROTOCOL,
        frame(wire.HEADERS, 1, 1, BLOCK[:5]),
        frame(9, 4, 3, BLOCK[5:]),
    ),
    # ---- 5.1 Stream states
    fatal("5.1", "DATA on an idle stream", PROTOCOL, data(1, b"x", ends=True)),
    fatal("5.1", "empty DATA on an idle stream", PROTOCOL, data(1)),
    fatal("5.1", "RST_STREAM on an idle stream", PROTOCOL, rst_stream(1)),
    fatal("5.1", "WINDOW_UPDATE on an idle stream", PROTOCOL, window_update(1, 100)),
    fatal("5.1", "CONTINUATION on an idle stream", PROTOCOL, frame(wire.CONTINUATION, 4, 1, BLOCK)),
    fine(
        "5.1", "PRIORITY on an idle stream", frame(wire.PRIORITY, 0, 1, PRIORITY), headers(1, ends=True), answers=(1,)
    ),
    broken("5.1", "DATA, half closed by the client", CLOSED, headers(1, ends=True), data(1, b"x", ends=True)),
    broken("5.1", "HEADERS, half closed by the client", CLOSED, headers(1, ends=True), headers(1, TRAILERS, ends=True)),
    fatal("5.1", "CONTINUATION, half closed by the client", PROTOCOL, headers(1, ends=True), frame(9, 4, 1, BLOCK)),
    fine("5.1", "WINDOW_UPDATE, half closed by the client", headers(1, ends=True), window_update(1, 100)),
    fine("5.1", "PRIORITY, half closed by the client", headers(1, ends=True), frame(wire.PRIORITY, 0, 1, PRIORITY)),
    fine("5.1", "RST_STREAM, half closed by the client", headers(1, ends=True), rst_stream(1)),
    broken("5.1", "DATA behind RST_STREAM", CLOSED, headers(1), rst_stream(1), data(1, b"x")),
    fatal("5.1", "HEADERS behind RST_STREAM", CLOSED, headers(1), rst_stream(1), headers(1)),
    fatal("5.1", "CONTINUATION behind RST_STREAM", PROTOCOL, headers(1), rst_stream(1), frame(9, 4, 1, BLOCK)),
    fine("5.1", "WINDOW_UPDATE behind RST_STREAM", headers(1), rst_stream(1), window_update(1, 2_000)),
    fine("5.1", "RST_STREAM twice", headers(1), rst_stream(1), rst_stream(1)),
    fine("5.1", "PRIORITY of a closed stream", headers(1), rst_stream(1), frame(wire.PRIORITY, 0, 1, PRIORITY)),
    # ---- 5.1.1, 5.1.2 Identifiers and concurrency
    fatal("5.1.1", "an even stream id", PROTOCOL, headers(2, ends=True)),
    fatal("5.1.1", "a stream id below one that was left out", PROTOCOL, headers(5, ends=True), headers(3, ends=True)),
    fatal("5.1.1", "the first id was left out", PROTOCOL, headers(3, ends=True), headers(1, ends=True)),
    fine("5.1.1", "stream ids with gaps", headers(5, ends=True), headers(2**31 - 1, ends=True), answers=(5, 2**31 - 1)),
    # ---- 5.3, 5.4, 5.5
    fatal(
        "5.3.1", "HEADERS that depend on themselves", PROTOCOL, frame(wire.HEADERS, 0x25, 1, b"\0\0\0\1\x0f" + BLOCK)
    ),
    fatal("5.3.1", "PRIORITY that depends on itself", PROTOCOL, frame(wire.PRIORITY, 0, 3, b"\0\0\0\3\x0f")),
    fine("5.3.1", "an exclusive dependency", frame(wire.HEADERS, 0x25, 3, b"\x80\0\0\1\xff" + BLOCK), answers=(3,)),
    fatal("5.4.1", "nothing is read behind an error", PROTOCOL, frame(wire.PING, 0, 1, bytes(8)), PING, headers(1)),
    fatal("5.5", "a frame of unknown type inside a header block", PROTOCOL, frame(1, 1, 1, BLOCK[:5]), frame(0x16)),
    # ---- 6.1 DATA
    fatal("6.1", "DATA on stream 0", PROTOCOL, data(0, b"x")),
    fine("6.1", "DATA in several frames", headers(1), data(1, b"a"), data(1, b"b", ends=True), answers=(1,)),
    fine("6.1", "padded DATA", headers(1), frame(wire.DATA, 9, 1, padded(b"abc", 200)), answers=(1,)),
    fine("6.1", "DATA of padding only", headers(1), frame(wire.DATA, 9, 1, padded(b"", 7)), answers=(1,)),
    fatal("6.1", "as much padding as frame", PROTOCOL, headers(1), frame(wire.DATA, 9, 1, b"\x06abcd\0")),
    fatal("6.1", "more padding than frame", PROTOCOL, headers(1), frame(wire.DATA, 9, 1, b"\xffabc")),
    fatal("6.1", "padding without its length", SIZE, headers(1), frame(wire.DATA, 9, 1, b"")),
    # ---- 6.2 HEADERS
    fatal("6.2", "HEADERS on stream 0", PROTOCOL, headers(0, ends=True)),
    fine("6.2", "padded HEADERS", frame(wire.HEADERS, 0x0D, 1, padded(BLOCK, 9)), answers=(1,)),
    fine("6.2", "HEADERS with a priority", frame(wire.HEADERS, 0x25, 1, PRIORITY + BLOCK), answers=(1,)),
    fine("6.2", "padded HEADERS with a priority", frame(1, 0x2D, 1, padded(PRIORITY + BLOCK, 3)), answers=(1,)),
    fatal("6.2", "more padding than HEADERS", PROTOCOL, frame(wire.HEADERS, 0x0D, 1, b"\xff" + BLOCK)),
    fatal("6.2", "HEADERS too short for a priority", SIZE, frame(wire.HEADERS, 0x25, 1, b"\0\0\0\0")),
    fatal("6.2", "padded HEADERS without a length", SIZE, frame(wire.HEADERS, 0x0D, 1, b"")),
    # ---- 6.3 PRIORITY
    fatal("6.3", "PRIORITY on stream 0", PROTOCOL, frame(wire.PRIORITY, 0, 0, PRIORITY)),
    fatal("6.3", "PRIORITY of 4 bytes", SIZE, headers(1), frame(wire.PRIORITY, 0, 1, PRIORITY[:4])),
    fatal("6.3", "PRIORITY of 6 bytes", SIZE, headers(1), frame(wire.PRIORITY, 0, 1, PRIORITY + b"\0")),
    # ---- 6.4 RST_STREAM
    fatal("6.4", "RST_STREAM on stream 0", PROTOCOL, rst_stream(0)),
    fatal("6.4", "RST_STREAM on an idle stream of the server", PROTOCOL, rst_stream(2)),
    fatal("6.4", "RST_STREAM of 3 bytes", SIZE, headers(1), frame(wire.RST_STREAM, 0, 1, bytes(3))),
    fatal("6.4", "RST_STREAM of 5 bytes", SIZE, headers(1), frame(wire.RST_STREAM, 0, 1, bytes(5))),
    # ---- 6.6 PUSH_PROMISE, 6.10 CONTINUATION (frames of the connection as a whole: see BOTH_ROLES)
    fatal("6.6", "PUSH_PROMISE of a client", PROTOCOL, headers(1), frame(wire.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + BLOCK)),
    fine("6.10", "a block in one CONTINUATION", frame(1, 1, 1, BLOCK[:5]), frame(9, 4, 1, BLOCK[5:]), answers=(1,)),
    fine(
        "6.10",
        "a block in several CONTINUATIONs, one of them empty",
        *(frame(1, 1, 1, b""), frame(9, 0, 1, BLOCK[:9]), frame(9, 0, 1, b""), frame(9, 4, 1, BLOCK[9:])),
        answers=(1,),
    ),
    fatal("6.10", "DATA inside a header block", PROTOCOL, frame(1, 1, 1, BLOCK[:5]), frame(9, 0, 1), data(1, b"x")),
    fatal("6.10", "CONTINUATION on stream 0", PROTOCOL, frame(1, 1, 1, BLOCK[:5]), frame(9, 4, 0, BLOCK[5:])),
    fatal("6.10", "CONTINUATION behind END_HEADERS", PROTOCOL, headers(1), frame(9, 4, 1, BLOCK)),
    fatal(
        "6.10",
        "CONTINUATION behind the END_HEADERS of another one",
        PROTOCOL,
        *(frame(1, 1, 1, BLOCK[:5]), frame(9, 4, 1, BLOCK[5:]), frame(9, 4, 1, BLOCK)),
    ),
    fatal("6.10", "CONTINUATION behind DATA", PROTOCOL, headers(1), data(1, b"x"), frame(9, 4, 1, BLOCK)),
    # ---- 6.9 WINDOW_UPDATE of streams
    broken("6.9", "WINDOW_UPDATE of 0 on a stream", PROTOCOL, headers(1), window_update(1, 0)),
    fine("6.9", "the reserved bit of an increment", headers(1), frame(8, 0, 1, b"\x80\0\x10\0")),
    broken("6.9.1", "a stream's window above 2^31-1", FLOW, headers(1), *[window_update(1, 2**31 - 1)] * 2),
    fatal(
        "6.9.2",
        "SETTINGS that take a stream's window above 2^31-1",
        FLOW,
        *(headers(1), window_update(1, 2**31 - 65_536), settings((Setting.INITIAL_WINDOW_SIZE, 65_536))),
    ),
    # ---- 7 Error codes
    fine("7", "RST_STREAM with an unknown code", headers(1), rst_stream(1, 0xDEAD_BEEF)),
    # ---- 8.1 Messages
    fine("8.1", "a request without a body", headers(1, ends=True), answers=(1,)),
    fine("8.1", "a request with trailers", headers(1), data(1, b"x"), headers(1, TRAILERS, ends=True), answers=(1,)),
    broken("8.1", "a second HEADERS without END_STREAM", PROTOCOL, headers(1), headers(1, TRAILERS)),
    broken(
        "8.1", "a pseudo-header field in trailers", PROTOCOL, headers(1), headers(1, [(b":method", b"GET")], ends=True)
    ),
    broken(
        "8.1.1",
        "a body longer than its content-length",
        PROTOCOL,
        headers(1, with_field(b"content-length", b"1")),
        data(1, b"ab"),
    ),
    broken(
        "8.1.1",
        "a body shorter than its content-length",
        PROTOCOL,
        *(headers(1, with_field(b"content-length", b"4")), data(1, b"a"), data(1, b"b", ends=True)),
    ),
    broken(
        "8.1.1",
        "trailers behind a body shorter than its content-length",
        PROTOCOL,
        *(headers(1, with_field(b"content-length", b"4")), data(1, b"a"), headers(1, TRAILERS, ends=True)),
    ),
    broken(
        "8.1.1", "a content-length and no body", PROTOCOL, headers(1, with_field(b"content-length", b"4"), ends=True)
    ),
    fine(
        "8.1.1",
        "a body as long as its content-length, padding aside",
        *(headers(1, with_field(b"content-length", b"4")), frame(0, 8, 1, padded(b"ab", 5)), data(1, b"cd", ends=True)),
        answers=(1,),
    ),
    # ---- 8.2, 8.3 Fields
    broken("8.2", "a name in upper case", PROTOCOL, headers(1, with_field(b"X-Test"))),
    broken("8.2.1", "an empty name", PROTOCOL, headers(1, with_field(b""))),
    broken("8.2.1", "a space in a name", PROTOCOL, headers(1, with_field(b"x test"))),
    broken("8.2.1", "a colon in a name", PROTOCOL, headers(1, with_field(b"x:test"))),
    broken("8.2.1", "a line break in a value", PROTOCOL, headers(1, with_field(b"x", b"a\r\nb"))),
    broken("8.2.1", "a NUL in a value", PROTOCOL, headers(1, with_field(b"x", b"a\0b"))),
    *(
        broken("8.2.2", f"{name.decode()}, a field of the connection", PROTOCOL, headers(1, with_field(name)))
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    ),
    broken("8.2.2", "TE other than trailers", PROTOCOL, headers(1, with_field(b"te", b"trailers, deflate;q=0.5"))),
    fine("8.2.2", "TE: trailers", headers(1, with_field(b"te", b"trailers"), ends=True), answers=(1,)),
    broken("8.3", "an unknown pseudo-header field", PROTOCOL, headers(1, with_field(b":test"))),
    broken("8.3", ":protocol, which was not offered", PROTOCOL, headers(1, [(b":protocol", b"websocket"), *REQUEST])),
    broken("8.3", "a pseudo-header field of responses", PROTOCOL, headers(1, [(b":status", b"200"), *REQUEST])),
    broken("8.3", "a pseudo-header field behind a regular one", PROTOCOL, headers(1, [(b"x", b"y"), *REQUEST])),
    *(
        broken("8.3.1", f"no {name.decode()}", PROTOCOL, headers(1, without(name)))
        for name in (b":method", b":scheme", b":path")
    ),
    *(
        broken("8.3.1", f"{name.decode()} twice", PROTOCOL, headers(1, [(name, REQUIRED[name]), *REQUEST]))
        for name in (b":method", b":scheme", b":path", b":authority")
    ),
    broken("8.3.1", "an empty :path", PROTOCOL, headers(1, [*without(b":path"), (b":path", b"")])),
    broken("8.5", "CONNECT with a path", PROTOCOL, headers(1, [(b":method", b"CONNECT"), *without(b":method")])),
    broken("8.5", "CONNECT without an authority", PROTOCOL, headers(1, [(b":method", b"CONNECT")])),
]


@pytest.mark.parametrize("singly", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section} {case.title}")
def test_a_server_answers_what_a_client_sends_as_the_standard_says(case: Case, singly: bool) -> None:
    server = ServerEnd(answer=echo) if case.answers else ServerEnd()
    receive = server.receive_singly if singly else server.receive

    frames = receive(case.sent)

    assert failures(frames) == list(case.failures)
    assert answered(frames) == list(case.answers)
    if case.failures[:1] and not case.failures[0][0]:
        assert frames[-1].kind == wire.GOAWAY
        assert not server.connection.streams
        assert not receive(PING, headers(1_001, ends=True)), "something was read behind the GOAWAY"
    else:
        assert server.connection.fault is None
        assert receive(PING) == [PONG]
        assert failures(receive(headers(2**31 - 1, ends=True))) == [] or "gaps" in case.title


def test_a_case_of_every_section_is_there() -> None:
    sections = {case.section for case in CASES}
    assert sections >= {"4.1", "4.2", "4.3", "5.1", "5.1.1", "5.3.1", "5.4.1", "5.5", "6.1", "6.2", "6.3", "6.4", "6.6"}
    assert sections >= {"6.9", "6.9.1", "6.9.2", "6.10", "7", "8.1", "8.1.1", "8.2", "8.2.1", "8.2.2", "8.3", "8.3.1"}
    assert len({(case.section, case.title) for case in CASES}) == len(CASES)
