"""`/-/connections`: the client connections of one gateway process, as JSON for the people who operate it.

It names the addresses of clients. So it is answered only to a client on the gateway's own node that no proxy speaks
for.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import unquote

from gateway.requests.end_to_end_fields import FORWARDED
from mesh.http2.transport import ConnectionFacts

LISTED_MAX = 1_000
"""Connections of one answer: those that buffer most, then the oldest."""
_PER_TURN = 200
"""Connections that are read before the loop may do something else."""


class ShownConnection(Protocol):
    """A connection on a socket, whatever it speaks."""

    @property
    def is_lost(self) -> bool: ...

    def facts(self, now_s: float) -> ConnectionFacts: ...


def may_ask(peer: str, fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the client is on this node itself. `peer` is named as gRPC does."""
    family, _, address = peer.partition(":")
    host = unquote(address.rpartition(":")[0]).strip("[]")
    try:
        is_here = family == "unix" or ip_address(host).is_loopback
    except ValueError:
        return False
    return is_here and not any(name in FORWARDED for name, _ in fields)


async def connections_page(
    connections: Callable[[], Iterable[ShownConnection]], gateway_id: str
) -> Mapping[str, object]:
    """The page as JSON takes it. Other calls run meanwhile: a gateway may have 10,000 connections."""
    now_s = time.monotonic()
    facts: list[ConnectionFacts] = []
    for number, connection in enumerate(list(connections()), start=1):
        if not connection.is_lost:
            facts.append(connection.facts(now_s))
        if number % _PER_TURN == 0:
            await asyncio.sleep(0)
    listed = heapq.nlargest(LISTED_MAX, facts, key=lambda each: (each.buffered_bytes, each.age_s))
    return {
        "gateway": gateway_id,
        "connections": len(facts),
        "streams": sum(each.streams for each in facts),
        "buffered_bytes": sum(each.buffered_bytes for each in facts),
        "listed": [_rounded(each) for each in listed],
    }


def _rounded(facts: ConnectionFacts) -> dict[str, object]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(facts).items()}
