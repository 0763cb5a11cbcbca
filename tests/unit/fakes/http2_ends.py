"""The two ends of an HTTP/2 connection as tests need them: in memory, with a fake clock, and receivers that record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, NamedTuple

from mesh.http2 import frame_format as wire
from mesh.http2.client_connection import ClientConnection
from mesh.http2.connection import Connection
from mesh.http2.field_rules import request_problem, response_problem, trailer_problem
from mesh.http2.frame_format import ErrorCode, Setting
from mesh.http2.hpack_decoder import Field
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from mesh.http2.server_connection import ServerConnection
from mesh.http2.stream import Stream

REQUEST: tuple[Field, ...] = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/test.v1.Echo/Say"),
    (b":authority", b"test"),
)
RESPONSE: tuple[Field, ...] = ((b":status", b"200"),)
TRAILERS: tuple[Field, ...] = ((b"grpc-status", b"0"),)
_SETTING = Struct(">HL")
_WRONG = -1


class Frame(NamedTuple):
    """One frame that was written."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def read_frames(data: bytes) -> list[Frame]:
    data = data.removeprefix(wire.PREFACE)
    frames = []
    position = 0
    while position < len(data):
        high, low, kind, flags, stream_id = wire.FRAME_HEADER.unpack_from(data, position)
        start = position + wire.HEADER_BYTES
        position = start + (high << 8 | low)
        assert position <= len(data), "half a frame was written"
        frames.append(Frame(kind, flags, stream_id, data[start:position]))
    return frames


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return wire.frame_header(len(payload), kind, flags, stream_id) + payload


def headers(stream_id: int, fields: Iterable[Field] = REQUEST, *, ends: bool = False) -> bytes:
    """A HEADERS frame with a whole block."""
    flags = wire.END_HEADERS | (wire.END_STREAM if ends else 0)
    return frame(wire.HEADERS, flags, stream_id, encode_fields(fields))


def data(stream_id: int, payload: bytes = b"", *, ends: bool = False) -> bytes:
    return frame(wire.DATA, wire.END_STREAM if ends else 0, stream_id, payload)


def padded(payload: bytes, padding: int) -> bytes:
    """The payload of a frame with the flag PADDED."""
    return bytes((padding,)) + payload + bytes(padding)


def rst_stream(stream_id: int, code: int = ErrorCode.CANCEL) -> bytes:
    return wire.rst_stream_frame(stream_id, code)


def settings(*values: tuple[int, int]) -> bytes:
    return frame(wire.SETTINGS, payload=b"".join(_SETTING.pack(key, value) for key, value in values))


def window_update(stream_id: int, increment: int) -> bytes:
    return wire.window_update_frame(stream_id, increment)


PING = wire.ping_frame(b"8 bytes.")
PONG = Frame(wire.PING, wire.ACK, 0, b"8 bytes.")


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Exchange:
    """The receiver of one stream: checks heads as the layer above does, and records every event."""

    def __init__(self, answer: Callable[[Exchange], None]) -> None:
        self._answer = answer
        self.stream: Stream
        self.heads: list[list[Field]] = []
        self.body = bytearray()
        self.is_complete = False
        self.reset_code: int | None = None
        self.writable = 0
        self.takes = True
        """Whether it gives room for more as data come."""

    @property
    def has_heard_the_end(self) -> bool:
        return self.is_complete or self.reset_code is not None

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None:
        assert not self.has_heard_the_end
        problem = trailer_problem if stream.connection.is_server or self.heads else response_problem
        if head is None or problem(head) or _content_length(head) == _WRONG:
            stream.connection.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
        elif not dict(head).get(b":status", b"").startswith(b"1"):
            self.heads.append(head)
            stream.content_left = _content_length(head) if len(self.heads) == 1 else stream.content_left

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        assert not self.has_heard_the_end
        assert 0 <= start < stop <= len(data)
        self.body += data[start:stop]
        if self.takes:
            stream.connection.give_room(stream, stop - start)

    def on_end(self, stream: Stream) -> None:
        assert not self.has_heard_the_end
        self.is_complete = True
        self._answer(self)

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        assert not self.has_heard_the_end or self.stream.connection.is_server
        assert self.reset_code is None
        assert stream.has_ended
        self.reset_code = code

    def on_writable(self, stream: Stream) -> None:
        assert self.reset_code is None
        self.writable += 1


def hold(exchange: Exchange) -> None:
    """No answer: the stream stays open."""


def echo(exchange: Exchange) -> None:
    """The body comes back between headers and trailers."""
    outbox = exchange.stream.connection.outbox
    outbox.send_headers(exchange.stream, encode_fields(RESPONSE))
    outbox.send_data(exchange.stream, bytes(exchange.body))
    outbox.end(exchange.stream, encode_fields(TRAILERS))


class End:
    """What both ends share."""

    connection: Connection[list[Field]]

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.exchanges: dict[int, Exchange] = {}
        self.calls_to_write = 0
        """How often the shell was asked to write."""

    def on_output(self) -> None:
        self.calls_to_write += 1

    def receive(self, *parts: bytes) -> list[Frame]:
        """What is written when these bytes have come."""
        self.connection.receive(b"".join(parts))
        return self.written()

    def receive_singly(self, *parts: bytes) -> list[Frame]:
        """The same, byte by byte."""
        return [each for byte in b"".join(parts) for each in self.receive(bytes((byte,)))]

    def written(self) -> list[Frame]:
        return read_frames(self.output())

    def output(self) -> bytes:
        """All that can be written now."""
        taken = bytearray()
        while pieces := self.connection.take_output():
            taken += b"".join(pieces)
        return bytes(taken)


class ServerEnd(End):
    """A server that holds or answers its requests."""

    connection: ServerConnection[list[Field]]

    def __init__(
        self,
        limits: Limits | None = None,
        answer: Callable[[Exchange], None] = hold,
        *,
        client_settings: tuple[tuple[int, int], ...] = (),
        is_greeted: bool = True,
    ) -> None:
        super().__init__()
        self._answer = answer
        self.connection = ServerConnection(_as_it_is, self._on_request, limits or Limits(), self.clock, self.on_output)
        if is_greeted:
            self.receive(wire.PREFACE, settings(*client_settings))

    def _on_request(self, stream: Stream, head: list[Field] | None) -> None:
        if head is None:
            stream.connection.outbox.end(stream, encode_fields([(b":status", b"431")]))
        elif request_problem(head) or _content_length(head) == _WRONG:
            stream.connection.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.content_left = _content_length(head)
            stream.receiver = exchange = self.exchanges[stream.id] = Exchange(self._answer)
            exchange.stream = stream
            exchange.heads.append(head)


class ClientEnd(End):
    """A client, whose greeting has been exchanged with the server or has not."""

    connection: ClientConnection[list[Field]]

    def __init__(self, limits: Limits | None = None, *, is_greeted: bool = True) -> None:
        super().__init__()
        self.connection = ClientConnection(_as_it_is, limits or Limits(), self.clock, self.on_output)
        if is_greeted:
            self.output()
            self.receive(settings((Setting.MAX_CONCURRENT_STREAMS, 1_000)))

    def open(self, fields: Iterable[Field] = REQUEST, *, ends: bool = False) -> Exchange:
        exchange = Exchange(hold)
        exchange.stream = self.connection.open(encode_fields(fields), exchange)
        self.exchanges[exchange.stream.id] = exchange
        if ends:
            self.connection.outbox.end(exchange.stream)
        return exchange


def carry(one: End, other: End) -> None:
    """Let both ends read what the other writes, until they have nothing more to say."""
    while True:
        there, back = one.output(), other.output()
        if not there and not back:
            return
        if there:
            other.connection.receive(there)
        if back:
            one.connection.receive(back)


def failures(frames: Iterable[Frame]) -> list[tuple[int, ErrorCode]]:
    """(stream, code) of each RST_STREAM, and (0, code) of each GOAWAY."""
    found = []
    for each in frames:
        if each.kind == wire.RST_STREAM:
            found.append((each.stream_id, ErrorCode(int.from_bytes(each.payload, "big"))))
        elif each.kind == wire.GOAWAY:
            found.append((0, ErrorCode(wire.read_goaway(each.payload)[1])))
    return found


def answered(frames: Iterable[Frame]) -> list[int]:
    """The streams whose response is complete."""
    return [
        each.stream_id for each in frames if each.kind in (wire.DATA, wire.HEADERS) and each.flags & wire.END_STREAM
    ]


def body_of(frames: Iterable[Frame], stream_id: int) -> bytes:
    return b"".join(each.payload for each in frames if each.kind == wire.DATA and each.stream_id == stream_id)


def _as_it_is(fields: list[Field]) -> list[Field]:
    return fields


def _content_length(fields: list[Field]) -> int | None:
    value = dict(fields).get(b"content-length")
    if value is None:
        return None
    return int(value) if value.isdigit() else _WRONG
