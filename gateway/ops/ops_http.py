"""The gateway's HTTP port for operators: health, routes and metrics."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.ops.exposition import render
from gateway.ops.metric_sums import Families
from mesh.settings import settings
from mesh.wire.io_thread import io_thread

_BACKLOG = 128
"""Connections that the kernel holds until they are accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """What the port serves."""

    why_unhealthy: Callable[[], str]
    """Empty when the gateway serves."""
    routes: Callable[[], Mapping[str, str]]
    """Application names by route prefix."""
    scrape: Callable[[], Awaitable[Families]]
    grpc_address: str
    """ "host:port" of the gRPC port, empty when it is turned off."""


class OpsHttp:
    """The server of the port. I/O loop only."""

    def __init__(self, operations: Operations) -> None:
        self._app = operations_app(operations)
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[Any] | None = None

    def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError with the port's name when it is taken."""
        listening = _listen(host, port)
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=settings().gateway.http_stop_grace_s,
            limit_concurrency=settings().gateway.http_requests_max,
        )
        self._server = uvicorn.Server(config)
        # Outside the main thread uvicorn installs no signal handlers, so those of the actor stay.
        self._serving = io_thread().spawn(self._server.serve(sockets=[listening]), "operators' HTTP port")
        bound: int = listening.getsockname()[1]
        return bound

    @property
    def has_died(self) -> bool:
        """Whether the server has started and ended."""
        return self._serving is not None and self._serving.done()

    async def stop(self) -> None:
        """Close the port when the requests in progress have finished."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving


def operations_app(operations: Operations) -> Starlette:
    """The port as an ASGI application."""

    async def healthz(_: Request) -> Response:
        why = operations.why_unhealthy()
        return PlainTextResponse(why or "success", status_code=503 if why else 200)

    async def routes(_: Request) -> Response:
        return JSONResponse(dict(operations.routes()))

    async def metrics(request: Request) -> Response:
        families = await operations.scrape()
        body, content_type = await asyncio.to_thread(render, families, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def not_found(request: Request) -> Response:
        grpc_port = f"gRPC is served at {operations.grpc_address}" if operations.grpc_address else "gRPC is turned off"
        error = (
            f"Path '{request.url.path}' not found. This port serves /-/healthz, /-/routes and /-/metrics; "
            f"applications are not served over HTTP. {grpc_port}."
        )
        return JSONResponse({"error": error}, status_code=404)

    every_method = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(
        routes=[
            Route("/-/healthz", healthz),
            Route("/-/routes", routes),
            Route("/-/metrics", metrics),
            Route("/{path:path}", not_found, methods=every_method),
        ]
    )


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on {host}:{port} for HTTP: {error.strerror}") from error
    return listening
