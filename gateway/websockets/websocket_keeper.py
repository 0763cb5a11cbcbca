"""All WebSockets of a gateway: one timer for them, and their close when the gateway drains. I/O loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from gateway.websockets.websocket_connection import RESTARTING, WebSocketConnection
from mesh.settings import settings

_TICKS_PER_TIMEOUT = 4
_PERIOD_MIN_S = 0.01
"""Least pause between two looks, however short the timeouts are."""
_DRAINING = "the gateway drains; connect again"


class WebSocketKeeper:
    """Knows each connection from its acceptance to its end."""

    def __init__(self, on_count: Callable[[int], None] = lambda count: None) -> None:
        """`on_count` gets the number of connections when it changes."""
        self._connections: set[WebSocketConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._on_count = on_count

    def __repr__(self) -> str:
        return f"<WebSocketKeeper of {len(self._connections)} connections>"

    def add(self, connection: WebSocketConnection) -> None:
        self._connections.add(connection)
        self._on_count(len(self._connections))
        if self._timer is None:
            self._start_timer()

    def discard(self, connection: WebSocketConnection) -> None:
        """Forget a connection, if it is known."""
        self._connections.discard(connection)
        self._on_count(len(self._connections))

    def drain(self) -> None:
        """Close all with 1012, so that their clients connect again elsewhere."""
        for connection in list(self._connections):
            connection.close(RESTARTING, _DRAINING)

    def _tick(self) -> None:
        now_s = monotonic()
        for connection in list(self._connections):
            connection.tick(now_s)
        self._timer = None
        if self._connections:
            self._start_timer()

    def _start_timer(self) -> None:
        limits = settings().gateway
        shortest_s = min(
            limits.websocket_ping_interval_s, limits.websocket_ping_timeout_s, limits.websocket_close_timeout_s
        )
        period_s = max(_PERIOD_MIN_S, shortest_s / _TICKS_PER_TIMEOUT)
        self._timer = asyncio.get_running_loop().call_later(period_s, self._tick)
