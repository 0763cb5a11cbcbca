"""`grpc.health.v1.Health` of the gateway.

It needs nothing of grpcio-health-checking. The servicer of that package drops all watchers of a name when one of them
leaves, and its generated code registers other methods from version to version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc

from gateway.requests.routes import RoutedApplication, Routes
from mesh.phases.waiting import Waiters
from mesh.v1 import health_pb2

_Reply = health_pb2.HealthCheckResponse
_SERVING = _Reply.SERVING
_NOT_SERVING = _Reply.NOT_SERVING

WHOLE_SERVER = ""
WATCHERS_MAX = 10_000
"""Calls of `Watch` at a time. They last, and strangers may open them."""
LISTED_MAX = 1_000
"""Names that one `List` answers with. The protocol has no pages, and refuses what is too long."""


class Health:
    """Serving state of the whole server and of every service and application by name. I/O loop only."""

    def __init__(self) -> None:
        self._can_serve: Mapping[str, bool] = MappingProxyType({WHOLE_SERVER: True})
        """By every known name."""
        self._is_serving = False
        self._is_closed = False
        self._watchers = Waiters()
        self.watching = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """The service as a handler for a grpc.aio server."""
        check = health_pb2.HealthCheckRequest.FromString
        reply = _Reply.SerializeToString
        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health",
            {
                "Check": grpc.unary_unary_rpc_method_handler(self.Check, check, reply),
                "List": grpc.unary_unary_rpc_method_handler(
                    self.List,
                    health_pb2.HealthListRequest.FromString,
                    health_pb2.HealthListResponse.SerializeToString,
                ),
                "Watch": grpc.unary_stream_rpc_method_handler(self.Watch, check, reply),
            },
        )

    def set_serving(self, can_serve: Mapping[str, bool]) -> None:
        """The whole server is SERVING, and so are the names, and no others, that can serve."""
        self._can_serve = MappingProxyType({**can_serve, WHOLE_SERVER: True})
        self._is_serving = True
        self._watchers.wake()

    def set_not_serving(self) -> None:
        """All names stay known and are NOT_SERVING."""
        self._is_serving = False
        self._watchers.wake()

    def close(self) -> None:
        """End all watches: a server that stops would otherwise wait for them."""
        self._is_closed = True
        self._watchers.wake()

    async def Check(self, request: Any, context: Any) -> Any:
        """The status of one name now; NOT_FOUND if it is unknown."""
        status = self._status(request.service)
        if status is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Nothing is called {request.service[:100]!r} here. Ask for '', a full service name or an application.",
            )
        return _Reply(status=status)

    async def List(self, request: Any, context: Any) -> Any:
        """The status of every name now; RESOURCE_EXHAUSTED if there are too many."""
        del request
        if len(self._can_serve) > LISTED_MAX:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{len(self._can_serve)} names have a status here, and List answers with at most {LISTED_MAX}. "
                "Ask for those you need with Check or Watch.",
            )
        return health_pb2.HealthListResponse(
            statuses={name: _Reply(status=self._status(name)) for name in self._can_serve}
        )

    async def Watch(self, request: Any, context: Any) -> None:
        """Every change of the status of one name, which may be unknown; ends when the server stops."""
        if self.watching >= WATCHERS_MAX:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{WATCHERS_MAX} calls of Watch are open at this gateway, its limit. Ask with Check, or later.",
            )
        self.watching += 1
        try:
            while not self._is_closed:
                sent = self._watched_status(request.service)
                await context.write(_Reply(status=sent))
                await self._changed_from(request.service, sent)
        finally:
            self.watching -= 1

    async def _changed_from(self, name: str, sent: Any) -> None:
        await self._watchers.until(lambda: self._is_closed or self._watched_status(name) != sent)

    def _status(self, name: str) -> Any:
        can_serve = self._can_serve.get(name)
        if can_serve is None:
            return None
        return _SERVING if self._is_serving and can_serve else _NOT_SERVING

    def _watched_status(self, name: str) -> Any:
        return self._status(name) or _Reply.SERVICE_UNKNOWN


def named_states(routes: Routes, can_serve: Callable[[RoutedApplication], bool]) -> dict[str, bool]:
    """Whether calls of an application, or of a service, can be answered, by their names.

    The state of a service is that of the applications that its calls reach which name none. `can_serve` is asked about
    those that clients can call; other applications only have a name here.
    """
    is_up = {
        name: not (application.methods or application.serves_web) or can_serve(application)
        for name, application in routes.applications.items()
    }
    states = dict(is_up)
    for service, reached in routes.reached.items():
        states[service] = states.get(service, False) or any(is_up[name] for name in reached)
    return states
