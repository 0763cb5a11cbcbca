"""Whatever bytes come, the only failure is a GOAWAY, and what the connection keeps and writes stays in order."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Setting
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from mesh.http2.stream import Stream
from tests.unit.fakes.http2_ends import (
    PING,
    REQUEST,
    RESPONSE,
    TRAILERS,
    ClientEnd,
    End,
    Exchange,
    ServerEnd,
    data,
    echo,
    frame,
    headers,
    padded,
    read_frames,
    rst_stream,
    window_update,
)
from tests.unit.fakes.http2_ends import settings as settings_frame

LIMITS = Limits(streams_max=8, control_burst=60, header_list_max_bytes=1_000)
fuzzed = settings(max_examples=150, derandomize=True)


def assert_sound(end: End, written: bytes, received_bytes: int) -> None:
    """What holds at any time, whatever has come."""
    connection = end.connection
    frames = read_frames(written)
    if connection.fault is not None:
        assert any(each.kind == wire.GOAWAY for each in frames)
        assert not connection.streams
        assert connection.is_done
    # What a client sends as data is its request, not an answer: only the server's windows limit it.
    request = 0 if connection.is_server else sum(len(each.payload) for each in frames if each.kind == wire.DATA)
    assert len(written) - request < 2_000 + 20 * received_bytes
    assert len(connection.streams) <= LIMITS.streams_max
    outbox = connection.outbox
    pending = [stream.pending for stream in connection.streams.values() if stream.pending is not None]
    assert outbox.pending_bytes == sum(len(piece) for each in pending for piece in each.pieces)
    assert set(outbox._ready) <= {stream for stream in connection.streams.values() if stream.pending is not None}
    for stream_id, exchange in end.exchanges.items():
        assert exchange.stream.has_ended == (stream_id not in connection.streams)
        assert exchange.has_heard_the_end or not exchange.stream.has_ended


def assert_stays_sound(end: End, pieces: Iterable[bytes], *, pauses: Iterable[bool] = ()) -> None:
    """It receives the pieces, one after the other. `pauses`: before which its socket fills, or empties again."""
    written, count = bytearray(), 0
    pausing = iter(pauses)
    for piece in pieces:
        outbox = end.connection.outbox
        if next(pausing, False):
            outbox.is_paused = not outbox.is_paused
            if not outbox.is_paused:
                outbox.resume()
        end.connection.receive(piece)
        count += len(piece)
        written += end.output()
        assert_sound(end, bytes(written), count)


def cut(sent: bytes, sizes: list[int]) -> Iterable[bytes]:
    position = 0
    for size in sizes:
        yield sent[position : position + size]
        position += size
    yield sent[position:]


def server(**options: object) -> ServerEnd:
    return ServerEnd(LIMITS, echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 20),))


def client() -> ClientEnd:
    """With two requests that are complete and one that waits for its window."""
    end = ClientEnd(LIMITS)
    for _ in range(2):
        end.open(ends=True)
    end.connection.outbox.send_data(end.open().stream, bytes(100_000))
    end.output()
    return end


ENDS = pytest.mark.parametrize("make", [server, client])

blocks = st.sampled_from(
    [
        encode_fields(REQUEST),
        encode_fields(RESPONSE),
        encode_fields(TRAILERS),
        encode_fields([*REQUEST, (b"content-length", b"3")]),
        encode_fields([*RESPONSE, (b"content-length", b"3")]),
        encode_fields(REQUEST) + b"\x40\x01a\x01b",
        b"\x88\x40\x01a\x01b",
        b"\xbe",
        b"\x20",
        encode_fields([(b"k", b"v" * 500)] * 3),
        b"",
    ]
)
payloads = st.one_of(
    blocks,
    st.binary(max_size=20),
    st.integers(0, 255).map(lambda padding: padded(b"abc", padding)),
    st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 100, 16_384, 65_536, 2**31 - 1, 2**32 - 1])), max_size=4
    ).map(lambda pairs: settings_frame(*pairs)[wire.HEADER_BYTES :]),
)
flags = st.sampled_from([0, 1, 4, 5, 8, 9, 0x0D, 0x20, 0x25, 0x2D, 0xFF])
stream_ids = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 9, 101, 2**31 - 1, 2**31 + 1])
usual_frames = st.one_of(
    st.builds(headers, stream_ids, ends=st.booleans()),
    st.builds(headers, stream_ids, st.just(RESPONSE), ends=st.booleans()),
    st.builds(data, stream_ids, st.binary(max_size=5) | st.just(bytes(300)), ends=st.booleans()),
    st.builds(rst_stream, stream_ids, st.integers(0, 15)),
    st.builds(window_update, stream_ids, st.sampled_from([0, 1, 10, 5_000, 2**31 - 1])),
    st.just(PING),
)
any_frames = st.builds(frame, st.integers(0, 11), flags, stream_ids, payloads)
sizes = st.lists(st.integers(1, 30), max_size=40)


@ENDS
@given(sent=st.binary(max_size=200), sizes=sizes)
@fuzzed
def test_random_bytes(make: type[End], sent: bytes, sizes: list[int]) -> None:
    assert_stays_sound(make(), cut(sent, sizes))


@given(sent=st.binary(max_size=100), sizes=sizes, keep=st.integers(0, 40))
@fuzzed
def test_random_bytes_from_the_beginning(sent: bytes, sizes: list[int], keep: int) -> None:
    assert_stays_sound(
        ServerEnd(LIMITS, echo, is_greeted=False), cut((wire.PREFACE + settings_frame())[:keep] + sent, sizes)
    )


@ENDS
@given(
    frames=st.lists(st.one_of(usual_frames, usual_frames, any_frames), max_size=40),
    sizes=sizes,
    pauses=st.lists(st.booleans(), max_size=40),
)
@fuzzed
def test_random_frames(make: type[End], frames: list[bytes], sizes: list[int], pauses: list[bool]) -> None:
    assert_stays_sound(make(), frames, pauses=pauses)
    assert_stays_sound(make(), cut(b"".join(frames), sizes))


CONVERSATION = {
    server: [
        headers(1),
        data(1, b"first"),
        settings_frame((Setting.INITIAL_WINDOW_SIZE, 1_000)),
        frame(wire.HEADERS, 0x21, 3, b"\0\0\0\1\x0f" + encode_fields(REQUEST)[:9]),
        frame(wire.CONTINUATION, 4, 3, encode_fields(REQUEST)[9:]),
        data(1, b"rest", ends=True),
        window_update(0, 10_000),
        frame(wire.HEADERS, 0x0D, 5, padded(encode_fields(REQUEST) + b"\x40\x01a\x01b", 3)),
        PING,
        headers(7),
        frame(wire.DATA, 8, 7, padded(b"padded", 20)),
        rst_stream(7),
        headers(9),
        headers(9, TRAILERS, ends=True),
        wire.goaway_frame(0, ErrorCode.NO_ERROR),
    ],
    client: [
        headers(1, RESPONSE),
        data(1, b"first"),
        settings_frame((Setting.INITIAL_WINDOW_SIZE, 1_000), (Setting.MAX_CONCURRENT_STREAMS, 2)),
        window_update(5, 5_000),
        headers(3, [*RESPONSE, (b"content-length", b"6")]),
        frame(wire.DATA, 8, 3, padded(b"padded", 20)),
        headers(3, TRAILERS, ends=True),
        window_update(0, 100_000),
        PING,
        headers(1, TRAILERS, ends=True),
        rst_stream(5),
        wire.goaway_frame(5, ErrorCode.NO_ERROR),
    ],
}
mutations = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "double", "insert", "swap"]), st.integers(0, 400), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def mutated(frames: list[bytes], changes: list[tuple[str, int, int]]) -> bytes:
    frames = list(frames)
    for kind, at, value in changes:
        if kind == "swap":
            one, other = at % len(frames), value % len(frames)
            frames[one], frames[other] = frames[other], frames[one]
    sent = b"".join(frames)
    for kind, at, value in changes:
        at %= len(sent)
        match kind:
            case "flip":
                sent = sent[:at] + bytes((sent[at] ^ (value or 1),)) + sent[at + 1 :]
            case "cut":
                sent = sent[:at] + sent[at + value % 20 :] or b"\0"
            case "double":
                sent = sent[: at + value % 20] + sent[at:]
            case "insert":
                sent = sent[:at] + bytes((value,)) * (1 + value % 3) + sent[at:]
    return sent


@pytest.mark.parametrize("make", CONVERSATION)
@example(changes=[("swap", 2, 7)], sizes=[20, 30])  # A client's waiting request leaves before much is received.
@given(changes=mutations, sizes=sizes)
@fuzzed
def test_mutated_conversations(make: type[End], changes: list[tuple[str, int, int]], sizes: list[int]) -> None:
    assert_stays_sound(make(), cut(mutated(CONVERSATION[make], changes), sizes))


@pytest.mark.parametrize("make", CONVERSATION)
def test_the_conversation_that_is_mutated_is_valid(make: type[End]) -> None:
    end = make()
    assert_stays_sound(end, CONVERSATION[make])
    assert end.connection.fault is None
    assert all(each.is_complete for stream_id, each in end.exchanges.items() if stream_id in (1, 3, 9))


class Unruly(Exchange):
    """A receiver that does anything within any event: what it does comes from a random list."""

    def __init__(self, end: End, actions: list[tuple[str, int]]) -> None:
        super().__init__(lambda exchange: None)
        self._end = end
        self._actions = actions

    def on_headers(self, stream: Stream, head: object, *, ended: bool) -> None:
        self._act()

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        assert not self.has_heard_the_end
        self._act()

    def on_end(self, stream: Stream) -> None:
        super().on_end(stream)
        self._act()

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        super().on_reset(stream, code)
        self._act()

    def on_writable(self, stream: Stream) -> None:
        super().on_writable(stream)
        self._act()

    def _act(self) -> None:
        if not self._actions:
            return
        action, number = self._actions.pop()
        connection = self._end.connection
        exchanges = list(self._end.exchanges.values())
        stream = exchanges[number % len(exchanges)].stream
        outbox = connection.outbox
        match action:
            case "reset":
                connection.reset(stream)
            case "fail":
                if stream.has_ended or not connection.fault:
                    connection.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
            case "close":
                connection.close(ErrorCode.CANCEL)
            case "headers" if connection.is_server and not stream.has_sent_headers:
                outbox.send_headers(stream, b"\x88")
            case "message":
                outbox.send_message(stream, bytes(number))
            case "end":
                outbox.end(stream, b"\x88")
            case "room":
                connection.give_room(stream, number)
            case "write":
                self._end.unruly_output += self._end.output()
            case "open" if isinstance(self._end, ClientEnd) and self._end.connection.has_room:
                made = Unruly(self._end, self._actions)
                made.stream = self._end.connection.open(b"\x83", made)
                self._end.exchanges[made.stream.id] = made


acts = st.lists(
    st.tuples(
        st.sampled_from(
            ["reset", "fail", "headers", "message", "message", "end", "room", "write", "open"] * 4 + ["close"]
        ),
        st.integers(0, 50),
    ),
    max_size=60,
)


@ENDS
@given(frames=st.lists(usual_frames, max_size=60), actions=acts, sizes=sizes, is_paused=st.booleans())
@settings(max_examples=200, derandomize=True)
def test_receivers_may_do_anything_within_any_event(
    make: type[End], frames: list[bytes], actions: list[tuple[str, int]], sizes: list[int], is_paused: bool
) -> None:
    end = make()
    end.unruly_output = b""
    for exchange in list(end.exchanges.values()):
        unruly = Unruly(end, actions)
        unruly.stream = exchange.stream
        exchange.stream.receiver = end.exchanges[exchange.stream.id] = unruly
    if isinstance(end, ServerEnd):

        def accept(stream: Stream, head: object) -> None:
            stream.receiver = unruly = end.exchanges[stream.id] = Unruly(end, actions)
            unruly.stream = stream
            unruly._act()

        end.connection._on_request = accept
    end.connection.outbox.is_paused = is_paused
    for piece in cut(b"".join(frames), sizes):
        end.connection.receive(piece)
    end.connection.outbox.resume()
    read_frames(end.unruly_output + end.output())
    outbox = end.connection.outbox
    streams = end.connection.streams.values()
    assert outbox.pending_bytes == sum(len(piece) for it in streams if it.pending for piece in it.pending.pieces)
    assert set(outbox._ready) <= {it for it in streams if it.pending is not None}
    assert all(not it.has_ended for it in streams)
