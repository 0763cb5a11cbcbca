"""Large messages that come in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rpc.message_reader import BegunMessage

BODY = bytes(range(256)) * 1_000


def framed(length: int) -> bytes:
    return b"\0" + length.to_bytes(4, "big")


@given(sizes=st.lists(st.integers(1, 100_000), max_size=10))
def test_the_message_is_whole_wherever_its_bytes_are_cut(sizes: list[int]) -> None:
    begun = BegunMessage.begin(b"x" + framed(len(BODY)) + BODY[:10] + b"y", 1, 16, len(BODY))
    assert begun is not None
    position = 10
    for size in [*sizes, len(BODY)]:
        piece = BODY[position : position + size]
        position += len(piece)
        assert begun.add(b"head" + piece + b"tail", 4, 4 + len(piece))
        assert begun.missing_bytes == len(BODY) - position
    assert begun.whole() == BODY
    assert begun.whole().readonly


def test_more_than_the_message_is_not_taken() -> None:
    begun = BegunMessage.begin(framed(100_000), 0, 5, 100_000)
    assert begun is not None
    assert not begun.add(bytes(100_001), 0, 100_001)
    assert begun.missing_bytes == 100_000


@pytest.mark.parametrize(
    ("data", "max_bytes"),
    [
        (framed(100_000)[:4], 100_000),
        (b"\1" + framed(100_000)[1:], 100_000),
        (framed(100_001), 100_000),
        (framed(1_000), 100_000),
        (framed(70_000) + bytes(70_001), 100_000),
        (framed(70_000) + bytes(70_000), 100_000),
    ],
    ids=["no prefix yet", "compressed", "too long", "small", "two messages", "whole"],
)
def test_other_messages_are_read_in_another_way(data: bytes, max_bytes: int) -> None:
    assert BegunMessage.begin(data, 0, len(data), max_bytes) is None
