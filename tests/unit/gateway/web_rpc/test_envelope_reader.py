"""Messages in envelopes: whole, in pieces, compressed, and wrong."""

from __future__ import annotations

import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.compression import DecompressionTurns, RequestDecompression
from gateway.web_rpc.envelope_reader import EnvelopeReader, envelope
from mesh.http2.limits import BufferBudget, BufferShare
from mesh.rpc.message_reader import MessageError, compressed
from mesh.rpc.status_codes import INTERNAL, RESOURCE_EXHAUSTED
from tests.unit.fakes.turning_loop import TurningLoop

MAX_BYTES = 64
messages = st.lists(st.tuples(st.binary(max_size=MAX_BYTES // 2), st.booleans()), max_size=6)
"""What cannot be compressed becomes longer, and the limit holds for both forms."""
cuts = st.lists(st.integers(1, 9), min_size=1, max_size=50)


def decompression(encoding: str, loop: TurningLoop | None = None) -> RequestDecompression | None:
    turns = DecompressionTurns((loop or TurningLoop()).as_loop)
    return RequestDecompression(turns, BufferShare(BufferBudget()), encoding, MAX_BYTES) if encoding else None


def read(reader: EnvelopeReader) -> list[bytes]:
    found = []
    while (message := reader.next_message()) is not None:
        found.append(message)
    return found


def failure(body: bytes, encoding: str = "gzip") -> MessageError:
    reader = EnvelopeReader(MAX_BYTES, decompression(encoding))
    reader.feed(body)
    reader.end()
    with pytest.raises(MessageError) as caught:
        read(reader)
    return caught.value


@given(messages, st.sampled_from(["gzip", "deflate"]), cuts)
def test_messages_are_the_same_however_the_body_is_cut(
    sent: list[tuple[bytes, bool]], encoding: str, sizes: list[int]
) -> None:
    body = b"".join(envelope(compressed(each, encoding), 1) if small else envelope(each) for each, small in sent)
    reader = EnvelopeReader(MAX_BYTES, decompression(encoding))
    found: list[bytes] = []
    position, turn = 0, 0
    while position < len(body):
        size = sizes[turn % len(sizes)]
        reader.feed(body[position : position + size])
        found += read(reader)
        position, turn = position + size, turn + 1
    reader.end()
    assert found + read(reader) == [each for each, _ in sent]
    assert reader.kept_bytes == 0


def test_messages_are_made_one_at_a_time() -> None:
    reader = EnvelopeReader(MAX_BYTES)
    reader.feed(envelope(b"one") + envelope(b"two"))
    assert reader.kept_bytes == 16
    assert reader.next_message() == b"one"
    assert reader.kept_bytes == 8


@given(st.binary(max_size=200))
def test_hostile_bodies_give_messages_or_a_status(body: bytes) -> None:
    reader = EnvelopeReader(MAX_BYTES, decompression("gzip"))
    reader.feed(body)
    reader.end()
    with suppress(MessageError):
        assert all(len(message) <= MAX_BYTES for message in read(reader))


def test_a_length_above_the_limit_is_refused_before_the_message_is_here() -> None:
    reader = EnvelopeReader(MAX_BYTES)
    reader.feed(b"\0" + (MAX_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(MessageError) as caught:
        reader.next_message()
    assert caught.value.code == RESOURCE_EXHAUSTED


def test_a_bomb_is_refused() -> None:
    assert failure(envelope(compressed(b"\0" * 10_000_000, "gzip"), 1)).code == RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (envelope(b"", 0x80), "gzip"),  # trailers, or the end of a stream, come from servers only
        (envelope(b"{}", 2), "gzip"),
        (envelope(compressed(b"x", "gzip"), 1), ""),
        (envelope(b"no gzip", 1), "gzip"),
        (envelope(compressed(b"x", "gzip")[:-1], 1), "gzip"),
        (envelope(compressed(b"x", "gzip") + b"!", 1), "gzip"),
        (envelope(zlib.compress(b"x"), 1), "gzip"),
        (envelope(b"cut off")[:-1], "gzip"),
        (b"\0\0", "gzip"),
    ],
)
def test_what_is_no_message_is_internal(body: bytes, encoding: str) -> None:
    assert failure(body, encoding).code == INTERNAL


def test_an_empty_message_is_never_decompressed() -> None:
    """Connect protocol, Unary-Request."""
    reader = EnvelopeReader(MAX_BYTES, decompression("gzip"))
    reader.feed(envelope(b"", 1))
    assert reader.next_message() == b""
