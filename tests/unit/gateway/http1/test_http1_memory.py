"""What an HTTP/1.1 connection keeps of exchanges that have ended: nothing, also between two visits of the collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest

from gateway.requests.exchange import BrokenBy, Exchange
from mesh.http2.limits import BufferBudget
from tests.unit.fakes.http1_ends import Client, on_loop, request
from tests.unit.gateway.fakes import until


def answer(client: Client, exchange: Exchange) -> None:
    exchange.send_whole(200, [], b"ok")


def abort(client: Client, exchange: Exchange) -> None:
    exchange.abort()


def leave(client: Client, exchange: Exchange) -> None:
    client.connection.connection_lost(None)


@pytest.mark.parametrize("end", [answer, abort, leave])
@on_loop
def test_an_exchange_that_has_ended_needs_no_collector(end: Callable[[Client, Exchange], None]) -> None:
    client = Client().send(request())
    receiver = weakref.ref(client.keepers[0])
    gc.disable()
    try:
        end(client, client.keepers[0].exchange)
        client.keepers.clear()
        assert receiver() is None
    finally:
        gc.enable()


AHEAD = request() * 5_000


@on_loop
def test_requests_that_wait_behind_another_one_count_as_buffered() -> None:
    client = Client().send(request(), AHEAD)
    assert not client.transport.is_reading
    assert client.budget.used_bytes == len(AHEAD)
    client.leave()
    assert client.budget.used_bytes == 0


def test_requests_that_wait_are_counted_until_they_are_read() -> None:
    async def scenario() -> None:
        client = Client()
        client.send(request(), AHEAD)
        for number in range(5_001):
            await until(lambda: len(client.keepers) > number, "the next request")  # noqa: B023
            client.keepers[number].exchange.send_whole(200, [], b"")
        assert (client.budget.used_bytes, client.transport.is_reading) == (0, True)

    asyncio.run(scenario())


@on_loop
def test_requests_for_which_there_is_no_room_end_their_connection() -> None:
    client = Client(budget=BufferBudget(2 * len(AHEAD) - 1))
    client.send(request(), AHEAD)
    assert client.keepers[0].broken == [BrokenBy.CLIENT]
    assert client.statuses == [503]
    assert client.transport.is_half_closed
    client.leave()
    assert client.budget.used_bytes == 0
