"""What an HTTP/1.1 connection keeps of exchanges that have ended: nothing, also between two visits of the collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest

from gateway.requests.exchange import Exchange
from tests.unit.fakes.http1_ends import Client, on_loop, request


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
