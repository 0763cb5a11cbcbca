"""Messages out of bytes that arrive in pieces of any size."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.rpc.message_reader import MessageError, MessageReader, compressed, whole_message
from mesh.rpc.status_codes import RESOURCE_EXHAUSTED


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


@given(
    messages=st.lists(st.one_of(st.binary(max_size=20), st.just(bytes(3_000))), max_size=8),
    sizes=st.lists(st.integers(1, 50), max_size=50),
)
@settings(max_examples=150, derandomize=True)
def test_messages_come_out_whole_wherever_their_bytes_are_cut(messages: list[bytes], sizes: list[int]) -> None:
    reader = MessageReader(10_000)
    sent = b"".join(map(framed, messages))
    read: list[bytes] = []
    for size in [*sizes, len(sent)]:
        if sent[:size]:
            read += reader.feed(sent[:size])
        sent = sent[size:]
    assert read == messages
    assert all(isinstance(message, bytes) for message in read)
    assert reader.is_between


def test_a_compressed_message_in_pieces() -> None:
    reader = MessageReader(10_000, "gzip")
    sent = framed(compressed(b"text " * 500, "gzip"), 1)
    assert [message for byte in sent for message in reader.feed(bytes((byte,)))] == [b"text " * 500]


def test_a_message_in_single_bytes_costs_no_object_for_each() -> None:
    """Else a stranger makes each byte that it sends cost forty."""
    reader = MessageReader(2**20)
    reader.feed(framed(bytes(200_000))[:5])
    pieces = [bytes((each % 256,)) for each in range(100_000)]
    tracemalloc.start()
    try:
        for piece in pieces:
            reader.feed(piece)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 200_000


def test_a_message_above_the_limit_is_refused_by_its_prefix() -> None:
    reader = MessageReader(100)
    with pytest.raises(MessageError) as error:
        reader.feed(b"\0\0\0\0\x65")
    assert error.value.code == RESOURCE_EXHAUSTED


def test_exactly_one_message_needs_no_reader() -> None:
    assert whole_message(b"xx" + framed(b"abc"), 2, 10, 3) == b"abc"
    assert whole_message(framed(b"abc"), 0, 8, 2) is None
    assert whole_message(framed(b"abc") + b"x", 0, 9, 100) is None
    assert whole_message(framed(b"abc", 1), 0, 8, 100) is None
    assert whole_message(b"\0\0", 0, 2, 100) is None
