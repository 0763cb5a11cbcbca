"""Clients that send anything, in any pieces, and answers of any kind: what must hold whatever they do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.http1.http1_limits import Http1Limits
from gateway.requests.exchange import Exchange
from mesh.http2.limits import BufferBudget
from tests.unit.fakes.fickle_receiver import ACTS, Fickle
from tests.unit.fakes.http1_ends import Client, answers, request


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Thousands of receivers fail on purpose."""
    logger = logging.getLogger("mesh.gateway")
    logger.disabled = True
    yield
    logger.disabled = False


LIMITS = Http1Limits(target_max_bytes=200, fields_max_bytes=400, fields_max=10, body_window_bytes=500)
BODY = st.binary(max_size=300)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

CHUNKED = st.lists(st.binary(min_size=1, max_size=50), max_size=5).map(
    lambda chunks: b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
)
REQUESTS = st.one_of(
    st.just(request()),
    st.just(request("HEAD /a?b HTTP/1.1", "te: trailers")),
    st.just(b"GET / HTTP/1.0\r\n\r\n"),
    st.just(request("GET / HTTP/1.1", "connection: close")),
    st.just(request("GET / HTTP/1.1", "connection: upgrade", "upgrade: websocket", "sec-websocket-key: a")),
    BODY.map(lambda body: request("POST / HTTP/1.1", f"content-length: {len(body)}", body=body)),
    BODY.map(lambda body: request("PUT / HTTP/1.1", "expect: 100-continue", f"content-length: {len(body)}", body=body)),
    CHUNKED.map(lambda body: request("POST / HTTP/1.1", "transfer-encoding: chunked", body=body)),
)


@st.composite
def mutated(draw: Any) -> bytes:
    """Well-formed requests with a few bytes replaced, removed, doubled or added."""
    data = bytearray(b"".join(draw(st.lists(REQUESTS, min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        piece = draw(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b":", b"0", b"\0", b"\xff", b"", b"\r\n\r\n", b";"]))
        data[place : place + draw(st.integers(0, 3))] = piece
    return bytes(data)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges) if stop > start]


def talk(pieces: list[bytes], acts: list[int], body: bytes) -> tuple[Client, list[Fickle]]:
    """A client sends the pieces, reads now and then, and leaves: it, and what answered."""

    async def scenario() -> tuple[Client, list[Fickle]]:
        client = Client(budget=BufferBudget(10_000), limits=LIMITS)
        fickle: list[Fickle] = []

        def opener(exchange: Exchange) -> Fickle:
            fickle.append(Fickle(exchange, acts, body))
            return fickle[-1]

        client._opener = opener
        for number, piece in enumerate(pieces):
            if client.transport.is_closed:
                break
            client.transport.is_stuck = number % 3 == 1
            client.connection.data_received(piece)
            await asyncio.sleep(0)
            assert_within_limits(client)
            if number % 3 == 2 and not client.transport.is_closed:
                client.let_write()
        client.leave()
        await asyncio.sleep(0)
        return client, fickle

    return asyncio.run(scenario())


def assert_within_limits(client: Client) -> None:
    assert client.in_flight.count <= 1
    assert client.connection._reader.unread_bytes < 70_000
    assert client.budget.used_bytes <= 10_000


PLACES = st.lists(st.integers(0, 1_500), max_size=8)


@settings(max_examples=400, deadline=None)
@given(st.one_of(mutated(), st.binary(max_size=500)), PLACES, ACTS, BODY)
def test_nothing_that_a_client_sends_leaks_or_fails(
    data: bytes, places: list[int], acts: list[int], body: bytes
) -> None:
    client, answering = talk(cut(data, places), acts, body)
    assert (client.in_flight.count, client.budget.used_bytes) == (0, 0)
    assert client.lost == [client.connection]
    assert all(each.exchange.has_ended for each in answering)


@settings(max_examples=200, deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=5), PLACES, BODY.filter(lambda body: CONTINUE not in body))
@example([request("POST / HTTP/1.1", "content-length: 17", body=b"connection: close"), request()], [], b"")
def test_well_formed_requests_get_one_answer_each_in_whatever_pieces_they_come(
    requests: list[bytes], places: list[int], body: bytes
) -> None:
    data = b"".join(requests)

    def run(pieces: list[bytes]) -> bytes:
        written = b""

        async def scenario() -> None:
            nonlocal written
            client = Client(limits=LIMITS)
            client._opener = lambda exchange: exchange.send_whole(200, [], body) and None
            for piece in pieces:
                client.connection.data_received(piece)
                await asyncio.sleep(0)
            written = client.written().replace(CONTINUE, b"")

        asyncio.run(scenario())
        return written

    kept = 1 + next((at for at, each in enumerate(requests[:-1]) if is_last(each)), len(requests) - 1)
    methods = [each.partition(b" ")[0] for each in requests[:kept]]
    found = answers(run(cut(data, places)), *methods)
    assert len(found) <= kept
    assert [status for status, _, _ in found] == [200] * len(found)
    if not any(b"expect:" in each for each in requests):
        assert len(found) == kept


def is_last(data: bytes) -> bool:
    """Whether the connection ends behind this request."""
    head = data.partition(b"\r\n\r\n")[0]
    return b"HTTP/1.0" in head or b"connection: close" in head
