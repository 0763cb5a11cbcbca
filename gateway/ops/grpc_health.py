"""Owns `grpc.health.v1.Health` of the gateway.

Not the servicer that comes with grpcio-health-checking: when one of several watchers of a name leaves, it forgets the
others, who then learn of no change any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.wire.endpoints import generic_handlers

_Reply = health_pb2.HealthCheckResponse
_SERVING = _Reply.SERVING
_NOT_SERVING = _Reply.NOT_SERVING

WHOLE_SERVER = ""


class Health:
    """Serving state of the whole server and of every service and application by name. I/O loop only."""

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset({WHOLE_SERVER})
        self._is_serving = False
        self._is_closed = False
        self._change: asyncio.Future[None] | None = None

    def handler(self) -> grpc.GenericRpcHandler:
        return generic_handlers(health_pb2_grpc.add_HealthServicer_to_server, self)

    def set_serving(self, names: Iterable[str]) -> None:
        """The whole server and exactly these names are served from now on."""
        self._names = frozenset({WHOLE_SERVER, *names})
        self._is_serving = True
        self._announce()

    def set_not_serving(self) -> None:
        """All names stay known, none is served."""
        self._is_serving = False
        self._announce()

    def close(self) -> None:
        """End all watches: a server that stops would otherwise wait for them."""
        self._is_closed = True
        self._announce()

    async def Check(self, request: Any, context: Any) -> Any:
        status = self._status(request.service)
        if status is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Nothing is called {request.service[:100]!r} here. Ask for '', a full service name or an application.",
            )
        return _Reply(status=status)

    async def Watch(self, request: Any, context: Any) -> None:
        told = None
        while not self._is_closed:
            change = self._next_change()
            status = self._status(request.service) or _Reply.SERVICE_UNKNOWN
            if status != told:
                await context.write(_Reply(status=status))
                told = status
            await asyncio.shield(change)

    def _status(self, name: str) -> Any:
        if name not in self._names:
            return None
        return _SERVING if self._is_serving else _NOT_SERVING

    def _next_change(self) -> asyncio.Future[None]:
        """Done at the next change; one for all watchers, hence shielded from their ends."""
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        return self._change

    def _announce(self) -> None:
        if self._change is not None:
            self._change.set_result(None)
            self._change = None
