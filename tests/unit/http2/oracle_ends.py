"""The two ends of a random conversation: ours and those of the library h2, each with what it has heard."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
import pytest
from h2.settings import SettingCodes

from mesh.http2.frame_format import HEADER_BYTES, PREFACE, ErrorCode
from mesh.http2.hpack_decoder import Field
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from tests.unit.fakes.http2_ends import ClientEnd, Exchange, ServerEnd

LIMITS = Limits(stream_window_bytes=70_000, connection_window_bytes=100_000)
"""Small, so that conversations reach them."""


@dataclass
class Half:
    """One direction of a stream: what was sent, or what has come."""

    head: list[Field] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[Field] = field(default_factory=list)
    is_complete: bool = False


class OurSide:
    """Our server or client."""

    def __init__(self, *, is_client: bool) -> None:
        self.end = ClientEnd(LIMITS, is_greeted=False) if is_client else ServerEnd(LIMITS, is_greeted=False)
        self._given: dict[int, int] = {}

    def open(self, fields: list[Field]) -> int | None:
        assert isinstance(self.end, ClientEnd)
        if not self.end.connection.has_room:
            return None
        return self._prepared(self.end.open(fields)).stream.id

    def knows(self, stream_id: int) -> bool:
        return stream_id in self.end.exchanges

    def head(self, stream_id: int, fields: list[Field]) -> None:
        self.end.connection.outbox.send_headers(self._stream(stream_id), encode_fields(fields))

    def body(self, stream_id: int, data: bytes, padding: int) -> None:
        self.end.connection.outbox.send_data(self._stream(stream_id), data)

    def finish(self, stream_id: int, trailers: list[Field]) -> None:
        self.end.connection.outbox.end(self._stream(stream_id), encode_fields(trailers))

    def reset(self, stream_id: int) -> None:
        self.end.connection.reset(self._stream(stream_id))

    def ping(self) -> None:
        self.end.connection.ping(b"12345678")

    def set(self, code: SettingCodes, value: int) -> None:
        """Ours are fixed when a connection begins."""

    def take(self, stream_id: int) -> None:
        exchange = self.end.exchanges[stream_id]
        size = len(exchange.body) - self._given.get(stream_id, 0)
        self._given[stream_id] = len(exchange.body)
        self.end.connection.give_room(exchange.stream, size)

    def take_all(self) -> None:
        for stream_id in list(self.end.exchanges):
            self.take(stream_id)

    def output(self) -> bytes:
        return self.end.output()

    def receive(self, data: bytes) -> None:
        self.end.connection.receive(data)
        assert self.end.connection.fault is None, self.end.connection.fault
        for exchange in self.end.exchanges.values():
            self._prepared(exchange)

    def received(self, stream_id: int) -> Half:
        exchange = self.end.exchanges.get(stream_id)
        if exchange is None:
            return Half()
        heads = [*exchange.heads, [], []]
        return Half(heads[0], exchange.body, heads[1], exchange.is_complete)

    def _stream(self, stream_id: int) -> Any:
        return self.end.exchanges[stream_id].stream

    @staticmethod
    def _prepared(exchange: Exchange) -> Exchange:
        exchange.takes = False
        return exchange


class H2Side:
    """The library h2 in the same role. It raises where its peer breaks a window, a frame size or the header table."""

    def __init__(self, *, is_client: bool) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=is_client, header_encoding=None))
        self.h2.initiate_connection()
        self._halves: dict[int, Half] = {}
        self._unsent: dict[int, deque[tuple[bytes, int] | list[Field]]] = {}
        self._held: dict[int, int] = {}
        self._is_setting = True
        self._unread = bytearray()
        self._preface_left = 0 if is_client else len(PREFACE)

    def open(self, fields: list[Field]) -> int | None:
        if self.h2.open_outbound_streams >= self.h2.remote_settings.max_concurrent_streams:
            return None
        stream_id: int = self.h2.get_next_available_stream_id()
        self._halves[stream_id] = Half()
        self.head(stream_id, fields)
        return stream_id

    def knows(self, stream_id: int) -> bool:
        return stream_id in self._halves

    def head(self, stream_id: int, fields: list[Field]) -> None:
        kinds = (hpack.HeaderTuple, hpack.NeverIndexedHeaderTuple)
        self._try(self.h2.send_headers, stream_id, [kinds[value[-1:] == b"!"](name, value) for name, value in fields])

    def body(self, stream_id: int, data: bytes, padding: int) -> None:
        self._unsent.setdefault(stream_id, deque()).append((data, padding))

    def finish(self, stream_id: int, trailers: list[Field]) -> None:
        self._unsent.setdefault(stream_id, deque()).append(trailers)

    def reset(self, stream_id: int) -> None:
        self._unsent.pop(stream_id, None)
        self._try(self.h2.reset_stream, stream_id, ErrorCode.CANCEL)

    def ping(self) -> None:
        self.h2.ping(b"12345678")

    def set(self, code: SettingCodes, value: int) -> None:
        # One at a time: h2 takes an acknowledgement for that of all SETTINGS under way.
        if not self._is_setting:
            self._is_setting = True
            self.h2.update_settings({code: value})

    def take(self, stream_id: int) -> None:
        size = self._held.pop(stream_id, 0)
        if size:
            self.h2.acknowledge_received_data(size, stream_id)

    def take_all(self) -> None:
        for stream_id in list(self._held):
            self.take(stream_id)

    def output(self) -> bytes:
        for stream_id in list(self._unsent):
            self._send(stream_id)
        data: bytes = self.h2.data_to_send()
        return data

    def receive(self, data: bytes) -> None:
        self._unread += data
        while part := self._next_part():
            self._receive(part)

    def _next_part(self) -> bytes:
        """One frame: h2 applies what an acknowledgement makes valid to the next piece only."""
        wanted = self._preface_left
        if not wanted and len(self._unread) >= HEADER_BYTES:
            wanted = HEADER_BYTES + int.from_bytes(self._unread[:3], "big")
        if not wanted or len(self._unread) < wanted:
            return b""
        part = bytes(self._unread[:wanted])
        del self._unread[:wanted]
        self._preface_left = 0
        return part

    def _receive(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.RequestReceived() | h2.events.ResponseReceived():
                    half = self._halves.setdefault(event.stream_id, Half())
                    half.head = [(bytes(name), bytes(value)) for name, value in event.headers]
                case h2.events.DataReceived():
                    self._halves[event.stream_id].body += event.data
                    held = self._held.get(event.stream_id, 0)
                    self._held[event.stream_id] = held + event.flow_controlled_length
                case h2.events.TrailersReceived():
                    self._halves[event.stream_id].trailers = [
                        (bytes(name), bytes(value)) for name, value in event.headers
                    ]
                case h2.events.StreamEnded():
                    self._halves[event.stream_id].is_complete = True
                case h2.events.StreamReset():
                    self._unsent.pop(event.stream_id, None)
                case h2.events.SettingsAcknowledged():
                    self._is_setting = False
                case h2.events.ConnectionTerminated():
                    pytest.fail(f"GOAWAY {event.error_code}: {event.additional_data!r}")

    def received(self, stream_id: int) -> Half:
        return self._halves.get(stream_id, Half())

    def _send(self, stream_id: int) -> None:
        waiting = self._unsent[stream_id]
        while waiting:
            match waiting[0]:
                case (bytes() as data, int() as padding):
                    extra = padding + 1 if padding else 0
                    room = min(self._window(stream_id), self.h2.max_outbound_frame_size) - extra
                    if room <= 0 and data:
                        return
                    piece, rest = data[:room], data[room:]
                    self._try(self.h2.send_data, stream_id, piece, pad_length=padding or None)
                    waiting.popleft()
                    if rest:
                        waiting.appendleft((rest, padding))
                case []:
                    self._try(self.h2.end_stream, stream_id)
                    waiting.popleft()
                case trailers:
                    self._try(self.h2.send_headers, stream_id, trailers, end_stream=True)
                    waiting.popleft()

    def _window(self, stream_id: int) -> int:
        try:
            return int(self.h2.local_flow_control_window(stream_id))
        except h2.exceptions.StreamClosedError:
            return 2**20

    @staticmethod
    def _try(action: Any, *args: Any, **kwargs: Any) -> None:
        """Do it unless the peer has ended the stream meanwhile."""
        try:
            action(*args, **kwargs)
        except h2.exceptions.StreamClosedError:
            pass
        except h2.exceptions.ProtocolError as error:
            if "in state 5" not in str(error) and "CLOSED" not in str(error):
                raise
