"""Bodies of requests, whole and in pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1.body_framing import BodyReader, ChunkedBody, SizedBody
from gateway.http1.http1_limits import Http1Error, Http1Limits

LIMITS = Http1Limits()


def take_all(body: BodyReader, data: bytes) -> tuple[bytes, bytes]:
    """The body, and what follows it."""
    position, pieces = 0, []
    while not body.is_done:
        before = position
        piece, position = body.take(data, position)
        pieces.append(piece)
        if position == before:
            break
    return b"".join(pieces), data[position:]


def status_of(data: bytes, limits: Http1Limits = LIMITS) -> int:
    with pytest.raises(Http1Error) as caught:
        take_all(ChunkedBody(limits), data)
    return caught.value.status


def test_a_body_with_a_length() -> None:
    body = SizedBody(5)
    assert take_all(body, b"hel") == (b"hel", b"")
    assert body.left_bytes == 2
    assert take_all(body, b"loGET") == (b"lo", b"GET")
    assert body.is_done


def test_a_body_in_chunks() -> None:
    body = ChunkedBody(LIMITS)
    data = b'5\r\nhello\r\nA;name=value;q="x"\r\n, wide wor\r\n00\r\nx-a: b\r\n\r\nGET'
    assert take_all(body, data) == (b"hello, wide wor", b"GET")
    assert body.is_done


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(CHUNKS, st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_pieces_of_any_size_make_the_same_body(chunks: list[bytes], cuts: list[int], has_trailers: bool) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n"
    data += b"a: b\r\n\r\n" if has_trailers else b"\r\n"
    data += b"NEXT"
    body, got, rest = ChunkedBody(LIMITS), b"", b""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, stop in pairwise(places):
        rest += data[start:stop]
        piece, rest = take_all(body, rest)
        got += piece
    assert (got, rest, body.is_done) == (b"".join(chunks), b"NEXT", True)


WRONG = {
    "no size": b"\r\nhello\r\n",
    "a negative size": b"-5\r\n",
    "a signed size": b"+5\r\n",
    "a size with a prefix": b"0x5\r\n",
    "a size that is not a number": b"g\r\n",
    "a size with an underscore": b"1_0\r\n",
    "a size with a space in front": b" 5\r\n",
    "a size with a space behind": b"5 \r\n",
    "a size that overflows": b"fffffffffffffffff\r\n",
    "a bare line feed behind the size": b"5\nhello\r\n",
    "a bare line feed in an extension": b"5;a\n\r\nhello\r\n",
    "a null byte in an extension": b"5;\0\r\nhello\r\n",
    "a chunk longer than its size": b"5\r\nhello!\r\n",
    "a bare line feed behind a chunk": b"5\r\nhello\n0\r\n\r\n",
    "a chunk without its end": b"5\r\nhello0\r\n\r\n",
    "a folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "a trailer that is none": b"0\r\nnothing\r\n\r\n",
    "a bare line feed in trailers": b"0\r\na: b\nc: d\r\n\r\n",
    "a line that never ends": b"5;" + b"a" * 2_000,
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_chunks_that_are_wrong_are_refused(data: bytes) -> None:
    assert status_of(data) == 400


def test_extensions_may_not_be_most_of_the_body() -> None:
    chunk = b"1;" + b"a" * 1_000 + b"\r\nx\r\n"
    assert status_of(chunk * 20) == 400
    # Large chunks may have some.
    large = b"1000;" + b"a" * 1_000 + b"\r\n" + bytes(0x1000) + b"\r\n"
    assert len(take_all(ChunkedBody(LIMITS), large * 20)[0]) == 20 * 0x1000


def test_many_tiny_chunks_are_a_body_too() -> None:
    assert take_all(ChunkedBody(LIMITS), b"1\r\nx\r\n" * 5_000 + b"0\r\n\r\n") == (b"x" * 5_000, b"")


def test_trailers_that_are_too_large_gets_431_back() -> None:
    small = Http1Limits(fields_max_bytes=100, fields_max=2)
    assert status_of(b"0\r\nx: " + b"a" * 200, small) == 431
    assert status_of(b"0\r\na: b\r\na: b\r\na: b\r\n\r\n", small) == 431


@given(st.binary(max_size=100))
def test_no_bytes_do_anything_else_than_fail(data: bytes) -> None:
    for prefix in (b"", b"5\r\nhello", b"0\r\n", b"3;"):
        try:
            (got, rest), status = take_all(ChunkedBody(LIMITS), prefix + data), 200
        except Http1Error as error:
            (got, rest), status = (b"", b""), error.status
        assert status in (200, 400, 431)
        assert len(got) + len(rest) <= len(prefix + data)
