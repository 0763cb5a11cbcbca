"""The libraries h2 and hpack as a second opinion: random conversations mean the same at both ends, ours and theirs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
import pytest
from h2.settings import SettingCodes
from h2.windows import WindowManager
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.http2.frame_format import HEADER_BYTES, PREFACE, ErrorCode
from mesh.http2.hpack_decoder import Field, HeaderDecoder
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from tests.unit.fakes.http2_ends import REQUEST, RESPONSE, ClientEnd, Exchange, ServerEnd

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


class Conversation:
    """Carries out random operations, and knows what must come of them."""

    def __init__(self, client: Any, server: Any) -> None:
        self.sides = (client, server)
        self.wires = (bytearray(), bytearray())
        self.sent: dict[int, tuple[Half, Half]] = {}
        self.was_reset: set[int] = set()
        self._exchange()

    def do(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case ("open", fields, _):
                self._open([*REQUEST, *fields])
            case ("carry", side, count):
                self._carry(side, count)
            case ("ping", side, _):
                self.sides[side].ping()
            case ("set", (code, value), side):
                self.sides[side].set(code, value)
            case (kind, (side, number), value) if self.sent:
                stream_id = list(self.sent)[number % len(self.sent)]
                if self.sides[side].knows(stream_id) and stream_id not in self.was_reset:
                    self._do_on_stream(kind, side, stream_id, value)

    def settle(self) -> None:
        """End all that is open, and let everything arrive."""
        for _ in range(2):
            self._exchange(turns=5)
            for side in (0, 1):
                self.sides[side].set(SettingCodes.INITIAL_WINDOW_SIZE, 65_535)
            assert self._exchange(), "the ends never stop talking"
            for stream_id in self.sent:
                for side in (0, 1):
                    if self.sides[side].knows(stream_id) and stream_id not in self.was_reset:
                        self._do_on_stream("end", side, stream_id, [])
        assert self._exchange(), "the ends never stop talking"

    def check(self) -> None:
        for stream_id, (request, response) in self.sent.items():
            at_server, at_client = self.sides[1].received(stream_id), self.sides[0].received(stream_id)
            if stream_id in self.was_reset:
                assert at_server.head in ([], request.head)
                assert at_client.head in ([], response.head)
            else:
                assert at_client == response
                assert at_server.head == request.head
                assert at_server == request or not at_server.is_complete
            assert request.body.startswith(at_server.body)
            assert response.body.startswith(at_client.body)

    def _open(self, fields: list[Field]) -> None:
        stream_id = self.sides[0].open(fields)
        if stream_id is not None:
            self.sent[stream_id] = (Half(head=fields), Half())

    def _do_on_stream(self, kind: str, side: int, stream_id: int, value: Any) -> None:
        half = self.sent[stream_id][side]
        if kind == "take":
            self.sides[side].take(stream_id)
            return
        if kind == "reset":
            # One that is complete in both directions cannot be reset any more, and need not.
            self.was_reset.add(stream_id)
            self.sides[side].reset(stream_id)
            return
        if half.is_complete:
            return
        if not half.head:
            half.head = list(RESPONSE)
            self.sides[side].head(stream_id, half.head)
        if kind == "body":
            size, padding = value
            data = bytes((len(half.body) + at) % 251 for at in range(size))
            half.body += data
            self.sides[side].body(stream_id, data, padding)
        else:
            half.is_complete, half.trailers = True, list(value)
            self.sides[side].finish(stream_id, half.trailers)

    def _carry(self, side: int, count: int) -> bool:
        wire = self.wires[side]
        wire += self.sides[side].output()
        part = bytes(wire[:count])
        del wire[:count]
        if part:
            self.sides[1 - side].receive(part)
        return bool(part)

    def _exchange(self, turns: int = 200) -> bool:
        """Carry all there is; whether the ends have come to rest."""
        for _ in range(turns):
            self.sides[0].take_all()
            self.sides[1].take_all()
            moved = self._carry(0, 2**30), self._carry(1, 2**30)
            if not any(moved):
                return True
        return False


values = st.one_of(
    st.sampled_from([b"", b"a", b"the same again", b"secret!", b"x" * 100]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(str.encode),
)
fields = st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b", b"user-agent", b"grpc-timeout"]), values), max_size=5)
side = st.integers(0, 1)
on_stream = st.tuples(side, st.integers(0, 7))
sizes = st.one_of(
    st.integers(0, 200), st.integers(0, 90_000), st.sampled_from([16_384, 16_385, 65_535, 65_536, 70_000])
)
setting = st.one_of(
    st.tuples(st.just(SettingCodes.INITIAL_WINDOW_SIZE), st.sampled_from([0, 1, 10, 1_000, 65_535, 200_000])),
    st.tuples(st.just(SettingCodes.MAX_FRAME_SIZE), st.sampled_from([16_384, 16_385, 100_000])),
    st.tuples(st.just(SettingCodes.HEADER_TABLE_SIZE), st.sampled_from([0, 1, 100, 4_096, 10_000])),
)
operation = st.one_of(
    st.tuples(st.just("open"), fields, st.none()),
    st.tuples(st.just("body"), on_stream, st.tuples(sizes, st.sampled_from([0, 0, 1, 17, 255]))),
    st.tuples(st.just("body"), on_stream, st.tuples(sizes, st.sampled_from([0, 0, 1, 17, 255]))),
    st.tuples(st.just("end"), on_stream, fields),
    st.tuples(st.just("reset"), on_stream, st.none()),
    st.tuples(st.just("take"), on_stream, st.none()),
    st.tuples(st.just("set"), setting, side),
    st.tuples(st.just("ping"), side, st.none()),
    st.tuples(st.just("carry"), side, st.one_of(st.integers(1, 40), st.just(100_000))),
    st.tuples(st.just("carry"), side, st.one_of(st.integers(1, 40), st.just(100_000))),
)


@pytest.fixture(scope="module", autouse=True)
def empty_frames_need_no_window() -> Iterator[None]:
    """h2 refuses an empty DATA frame while its window is below zero; RFC 9113 §6.9.1 allows it."""
    consumed = WindowManager.window_consumed
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(WindowManager, "window_consumed", lambda self, size: consumed(self, size) if size else None)
        yield


PAIRS = {
    "h2 calls us": (H2Side, OurSide),
    "we call h2": (OurSide, H2Side),
    "we call ourselves": (OurSide, OurSide),
}


@pytest.mark.parametrize("pair", PAIRS)
@given(operations=st.lists(operation, min_size=5, max_size=60))
@example(
    operations=[
        ("open", [], None),
        ("set", (SettingCodes.INITIAL_WINDOW_SIZE, 200_000), 1),
        ("body", (0, 0), (65_536, 0)),
        ("carry", 1, 100_000),
    ]
)
@settings(max_examples=60, derandomize=True)
def test_both_ends_hear_what_the_other_said(pair: str, operations: list[tuple[Any, ...]]) -> None:
    client, server = PAIRS[pair]
    conversation = Conversation(client(is_client=True), server(is_client=False))
    for each in [("open", [], None), *operations]:
        conversation.do(each)
    conversation.settle()
    conversation.check()


# ---- HPACK -----------------------------------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from([b":method", b":path", b"content-type", b"x-a", b"x-b"]), st.binary(min_size=1, max_size=40)
)
any_fields = st.lists(st.tuples(names, st.binary(max_size=200), st.booleans()), max_size=8)


@given(blocks=st.lists(st.tuples(any_fields, st.booleans(), st.none() | st.integers(0, 4_096)), max_size=12))
@settings(max_examples=150, derandomize=True)
def test_we_read_what_hpack_writes(blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]]) -> None:
    encoder = hpack.Encoder()
    decoder: HeaderDecoder[list[Field]] = HeaderDecoder(list, 2**20)
    for written, is_huffman, table_bytes in blocks:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        for _ in range(2):
            block = encoder.encode(written, huffman=is_huffman)
            assert decoder.decode(block) == [(name, value) for name, value, _ in written]
    assert [(bytes(name), bytes(value)) for name, value in encoder.header_table.dynamic_entries] == list(decoder._table)


@given(blocks=st.lists(any_fields, max_size=6))
@settings(max_examples=100, derandomize=True)
def test_hpack_reads_what_we_write(blocks: list[list[tuple[bytes, bytes, bool]]]) -> None:
    decoder = hpack.Decoder()
    for written in blocks:
        fields = [(name, value) for name, value, _ in written]
        assert [tuple(each) for each in decoder.decode(encode_fields(fields), raw=True)] == fields
    assert not decoder.header_table.dynamic_entries
