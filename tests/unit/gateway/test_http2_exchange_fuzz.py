"""Exchanges on HTTP/2 whose clients and receivers do anything at any time: what must hold whatever they do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http1.http1_limits import Http1Limits
from gateway.http_server import HttpServer, ServerLimits
from gateway.requests.exchange import Exchange
from mesh.http2.frame_format import ErrorCode
from mesh.http2.limits import BufferBudget, Limits
from mesh.http2.upkeep import UpkeepPolicy
from tests.unit.fakes.fickle_receiver import ACTS, Fickle
from tests.unit.fakes.http2_ends import ClientEnd

METHODS = (b"GET", b"HEAD", b"POST", b"CONNECT")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from(METHODS), st.booleans()),
        st.tuples(st.just("send"), st.integers(0, 5), st.integers(1, 100_000)),
        st.tuples(st.sampled_from(["end", "reset", "read"]), st.integers(0, 5), st.just(0)),
    ),
    max_size=20,
)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Thousands of receivers fail on purpose."""
    loggers = [logging.getLogger(name) for name in ("mesh.gateway", "mesh.http2")]
    for logger in loggers:
        logger.disabled = True
    yield
    for logger in loggers:
        logger.disabled = False


class Pair:
    """A client and a gateway's end of one connection in memory."""

    def __init__(self, acts: list[int], body: bytes) -> None:
        self.fickle: list[Fickle] = []
        self.budget = BufferBudget(300_000)
        limits = ServerLimits(
            http2=Limits(takes_websockets=True),
            http1=Http1Limits(),
            upkeep=UpkeepPolicy(),
            budget=self.budget,
            connections_max=1,
        )

        def opener(exchange: Exchange) -> Fickle:
            self.fickle.append(Fickle(exchange, acts, body))
            return self.fickle[-1]

        self.server = HttpServer(lambda stream, head, peer: None, opener, limits)
        self.end = self.server._requests[False].connection("", lambda: None)
        self.client = ClientEnd(is_greeted=False)
        self.carry()

    def carry(self) -> None:
        """Let both ends read what the other has written."""
        while there := self.client.output():
            self.end.receive(there)
        while pieces := self.end.take_output():
            self.client.connection.receive(b"".join(pieces))

    def step(self, what: str, which: Any, amount: Any) -> None:
        client = self.client
        exchanges = list(client.exchanges.values())
        if what == "open":
            pseudo = [(b":method", which), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
            fields = [*pseudo, *([(b":protocol", b"websocket")] if which == b"CONNECT" else [])]
            client.open(fields, ends=amount).takes = False
        elif which < len(exchanges) and not exchanges[which].stream.has_ended:
            stream = exchanges[which].stream
            match what:
                case "send" if not stream.is_local_done:
                    client.connection.outbox.send_data(stream, bytes(amount))
                case "end" if not stream.is_local_done:
                    client.connection.outbox.end(stream)
                case "reset":
                    client.connection.reset(stream)
                case "read":
                    client.connection.give_room(stream, 100_000)


@settings(max_examples=300, deadline=None)
@given(STEPS, ACTS, st.integers(0, 100_000))
def test_nothing_that_a_client_or_a_receiver_does_leaks(
    steps: list[tuple[str, Any, Any]], acts: list[int], size: int
) -> None:
    pair = Pair(acts, bytes(size))
    for step in steps:
        pair.step(*step)
        pair.carry()
        open_now = sum(not each.exchange.has_ended for each in pair.fickle)
        assert pair.server.in_flight.count == open_now
        assert pair.budget.used_bytes <= 300_000
    assert pair.end.fault is None
    pair.end.close(ErrorCode.CONNECT_ERROR)
    assert all(each.exchange.has_ended for each in pair.fickle)
    assert (pair.server.in_flight.count, pair.budget.used_bytes) == (0, 0)
