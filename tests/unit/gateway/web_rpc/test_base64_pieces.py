"""Base64 in pieces: cut anywhere, padded in the middle, and wrong."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web_rpc.base64_pieces import Base64Pieces
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import INTERNAL


def decode(text: bytes) -> bytes:
    decoder = Base64Pieces()
    found = decoder.feed(text)
    decoder.end()
    return found


@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.integers(1, 7), min_size=1, max_size=30))
def test_pieces_that_are_padded_are_decoded_however_they_are_cut(pieces: list[bytes], sizes: list[int]) -> None:
    text = b"".join(b64encode(piece) for piece in pieces)
    decoder = Base64Pieces()
    found, position, turn = b"", 0, 0
    while position < len(text):
        size = sizes[turn % len(sizes)]
        found += decoder.feed(text[position : position + size])
        position, turn = position + size, turn + 1
    decoder.end()
    assert found == b"".join(pieces)


@pytest.mark.parametrize(
    "text", [b"QQ", b"Q===", b"====", b"=QQQ", b"Q=QQ", b"QQ=Q", b"Q Q=", b"\xff\xff\xff\xff", b"QQ-_", b"\n"]
)
def test_what_is_no_base64_is_internal(text: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        decode(text)
    assert caught.value.code == INTERNAL


@given(st.binary(max_size=100))
def test_hostile_text_gives_bytes_or_a_status(text: bytes) -> None:
    with suppress(MessageError):
        assert len(decode(text)) <= len(text)
