"""gateway.ops.connections_page: what it shows of connections, how much, and to whom."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.ops import connections_page as page
from gateway.ops.connections_page import connections_page, may_ask
from mesh.http2.transport import ConnectionFacts

FACTS = ConnectionFacts(
    peer="ipv4:10.0.0.1:4711",
    protocol="h2",
    tls="TLSv1.3",
    age_s=12.34567,
    silent_s=0.5,
    streams=2,
    streams_opened=7,
    buffered_bytes=10,
    unsent_bytes=4,
    awaits_pong=False,
    is_draining=False,
)


class Connection:
    def __init__(self, facts: ConnectionFacts | None) -> None:
        self._facts = facts

    @property
    def is_lost(self) -> bool:
        return self._facts is None

    def facts(self, now_s: float) -> ConnectionFacts:
        assert self._facts is not None
        return self._facts


def page_of(*facts: ConnectionFacts | None) -> Any:
    return asyncio.run(connections_page(lambda: [Connection(each) for each in facts], "g1"))


def test_sums_stand_before_the_connections() -> None:
    other = replace(FACTS, streams=1, buffered_bytes=5, age_s=1.0)
    shown = page_of(FACTS, other, None)
    assert {name: value for name, value in shown.items() if name != "listed"} == {
        "gateway": "g1",
        "connections": 2,
        "streams": 3,
        "buffered_bytes": 15,
    }
    assert shown["listed"][0]["peer"] == "ipv4:10.0.0.1:4711"
    assert shown["listed"][0]["age_s"] == 12.346


def test_those_that_buffer_most_are_listed_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LISTED_MAX", 3)
    facts = [replace(FACTS, buffered_bytes=size, age_s=age) for size, age in ((0, 1), (9, 1), (0, 5), (0, 7), (4, 1))]
    shown = page_of(*facts)
    assert shown["connections"] == 5
    assert [(each["buffered_bytes"], each["age_s"]) for each in shown["listed"]] == [(9, 1), (4, 1), (0, 7)]


def test_many_connections_do_not_keep_the_loop() -> None:
    """Something else runs while the page is made."""

    async def scenario() -> None:
        making = asyncio.create_task(connections_page(lambda: [Connection(FACTS)] * 1_000, "g1"))  # type: ignore[arg-type]
        turns = 0
        while not making.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 1_000 // page._PER_TURN

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("peer", "is_here"),
    [
        ("ipv4:127.0.0.1:4711", True),
        ("ipv6:%5B::1%5D:4711", True),
        ("unix:", True),
        ("ipv4:10.0.0.1:4711", False),
        ("ipv6:%5B2001:db8::1%5D:4711", False),
        ("ipv4:127.0.0.1.example:1", False),
        ("", False),
    ],
)
def test_only_clients_on_the_node_may_ask(peer: str, is_here: bool) -> None:
    """The page names addresses of clients."""
    assert may_ask(peer, [(b"host", b"localhost")]) is is_here


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"via", b"x-real-ip"])
def test_a_proxy_on_the_node_asks_for_others(name: bytes) -> None:
    assert not may_ask("ipv4:127.0.0.1:4711", [(b"host", b"x"), (name, b"1.2.3.4")])
